"""Unit features and class probabilities side by side, against the formulas written out in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nestkala import Hasher
from nestkala.modeling.class_layer import MAX_WIDTH, SHARPNESS, ClassLayer
from nestkala.settings.config import Config
from nestkala.training.run import train


def filled(in_features: int, classes: int, seed: int = 0) -> ClassLayer:
    """A layer in double precision of which nothing is left as it starts."""
    generator = torch.Generator().manual_seed(seed)
    layer = ClassLayer(in_features, classes).double()
    for tensor in layer.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return layer


def by_hand(layer: ClassLayer, features: Tensor) -> np.ndarray:
    """One image and one class at a time."""
    mean, basis, whitening, prototypes = (
        getattr(layer, name).detach().numpy() for name in ("mean", "basis", "whitening", "prototypes")
    )
    rows = []
    for x in features.detach().numpy():
        unit = (x - mean) @ basis
        unit /= np.sqrt((unit**2).sum())
        white = unit @ whitening
        cosines = [white @ p / np.sqrt((white @ white) * (p @ p)) for p in prototypes]
        weights = [np.exp(SHARPNESS * cosine) for cosine in cosines]
        rows.append([*unit, *(weight / sum(weights) for weight in weights)])
    return np.array(rows)


@pytest.mark.parametrize(("in_features", "classes"), [(7, 3), (1, 2), (MAX_WIDTH + 5, 4)])
def test_it_is_what_the_formulas_say(in_features: int, classes: int) -> None:
    layer = filled(in_features, classes)
    features = torch.randn(6, in_features, dtype=torch.float64) + 0.1
    found = layer(features)
    assert layer.width == min(in_features, MAX_WIDTH)
    assert found.shape == (6, layer.out_features) == (6, layer.width + classes)
    np.testing.assert_allclose(found.detach().numpy(), by_hand(layer, features), rtol=1e-9, atol=1e-12)
    assert layer(features[:0]).shape == (0, layer.out_features)


def test_gradients_reach_prototypes_and_features() -> None:
    layer, features = filled(5, 3), torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert {name for name, _ in layer.named_parameters()} == {"prototypes"}

    def outputs(x: Tensor, prototypes: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"prototypes": prototypes}, (x,))

    assert torch.autograd.gradcheck(outputs, (features, layer.prototypes))
    layer(features)[:, layer.width].sum().backward()
    assert layer.prototypes.grad is not None
    assert (layer.prototypes.grad.abs().sum(dim=1) > 0).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for a moment on own features of three classes, from labels alone."""
    folder = tmp_path_factory.mktemp("layer")
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    np.save(folder / "features.npy", (4 * np.eye(3, 12)[labels] + rng.normal(size=(90, 12))).astype(np.float32))
    np.save(folder / "labels.npy", labels)
    own = {"data": str(folder), "backbone": "features:12", "adapter": "none", "anchors": "orthonormal"}
    small = {"queries": 15, "shots": 4, "lengths": (4, 20), "epochs": 2, "lr": 0.01, "class_bits": 8}
    return train(Config(output=folder / "run", head_init="labels", **own, **small))


def test_it_is_saved_and_loaded(run: Path) -> None:
    hasher = Hasher.from_pretrained(run, "cpu")
    layer = hasher.model.class_layer
    assert hasher.spec.class_layer
    assert layer is not None
    features = torch.from_numpy(np.load(run.parent / "features.npy"))
    through = np.concatenate([by_hand(layer.double(), features.double())])
    head = hasher.model.head.linear
    logits = through @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()
    layer.float()
    sure = np.abs(logits) > 1e-4
    bits = np.unpackbits(hasher.encode(features.numpy()), axis=1)[:, :20]
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(bits[sure], (logits >= 0)[sure])


def test_training_moves_the_prototypes(run: Path, tmp_path: Path) -> None:
    settings = {"shots": 4, "lengths": (4, 20), "class_bits": 8, "head_init": "labels", "queries": 15}
    own = {"data": str(run.parent), "backbone": "features:12", "adapter": "none", "anchors": "orthonormal"}
    start = train(Config(output=tmp_path / "run", epochs=0, **own, **settings))
    trained, before = (Hasher.from_pretrained(folder, "cpu").model.class_layer for folder in (run, start))
    assert trained is not None
    assert before is not None
    assert torch.equal(trained.basis, before.basis)
    assert not torch.equal(trained.prototypes, before.prototypes)


def test_onnx_goes_through_it(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    from nestkala.search.export import export_onnx

    hasher, features = Hasher.from_pretrained(run, "cpu"), np.load(run.parent / "features.npy")
    export_onnx(hasher, tmp_path / "model.onnx")
    codes, h = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"images": features})
    relaxed = hasher.relaxed(features)
    np.testing.assert_allclose(h, relaxed, atol=1e-4)
    sure = np.abs(relaxed) > 1e-4
    np.testing.assert_array_equal(
        np.unpackbits(codes, axis=1)[:, :20][sure], np.unpackbits(hasher.encode(features), axis=1)[:, :20][sure]
    )
