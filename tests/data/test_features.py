"""A researcher's own features in place of images: from the folder to codes and back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from nestkala import Hasher
from nestkala.codes import unpack
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.evaluation import evaluate
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

WIDTH, CLASSES, PER_CLASS = 12, 4, 30
Folder = Callable[..., Path]


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features around four random directions, and their class numbers."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    return rng.normal(size=(CLASSES, WIDTH))[labels] + 0.3 * rng.normal(size=(len(labels), WIDTH)), labels


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def write(features: np.ndarray | None = None, labels: np.ndarray | None = None, names: str | None = None) -> Path:
        made = tmp_path / "own"
        made.mkdir(exist_ok=True)
        ours = drawn()
        np.save(made / "features.npy", ours[0] if features is None else features)
        np.save(made / "labels.npy", ours[1] if labels is None else labels)
        if names is not None:
            (made / "classnames.txt").write_text(names)
        return made

    return write


def settings(data: Path, /, **changes: object) -> Config:
    given: dict[str, object] = {
        "data": str(data),
        "backbone": f"features:{WIDTH}",
        "adapter": "none",
        "anchors": "orthonormal",
        "output": data.parent / "run",
        "lengths": (4, 12),
        "shots": 5,
        "queries_per_class": 5,
        "epochs": 40,
        "workers": 0,
    }
    return Config(**(given | changes))


def test_it_trains_evaluates_and_encodes_straight_from_the_arrays(folder: Folder) -> None:
    data = folder()
    features, labels = drawn()
    run = train(settings(data))
    AcceleratorState._reset_state()
    hasher, split = Hasher.from_pretrained(run), load_split(run / "split.json", load_dataset(str(data), Path()))
    one_hot = np.eye(CLASSES, dtype=bool)[labels]
    query, gallery = (hasher.encode(features[part]) for part in (split.query, split.gallery))
    scores = evaluate(query, one_hot[split.query], gallery, one_hot[split.gallery], (4, 12))
    assert f'"map": {scores[12].map}' in (run / "metrics.json").read_text()
    assert scores[12].map > 0.9  # the classes lie well apart

    import safetensors.torch

    state = safetensors.torch.load_file(run / "model.safetensors")
    linear = features[:7].astype(np.float32) @ state["head.linear.weight"].numpy().T + state["head.linear.bias"].numpy()
    mean, variance = state["head.norm.running_mean"].numpy(), state["head.norm.running_var"].numpy()
    normal = (linear - mean) / np.sqrt(variance + 1e-5) * state["head.norm.weight"].numpy()
    by_hand = np.sign(normal + state["head.norm.bias"].numpy())
    np.testing.assert_array_equal(unpack(hasher.encode(features[:7]), 12), by_hand)
    np.testing.assert_array_equal(hasher.encode(features[3]), hasher.encode(features[:7])[3:4])


def test_several_labels_an_image(folder: Folder) -> None:
    features, labels = drawn()
    targets = np.eye(CLASSES, dtype=np.uint8)[labels]
    targets[::7, 0] = 1
    dataset = load_dataset(str(folder(features, targets, "a\nb\nc\nd\n")), Path())
    np.testing.assert_array_equal(dataset.targets, targets.astype(bool))
    assert dataset.class_names == ("a", "b", "c", "d")
    assert len(dataset) == CLASSES * PER_CLASS


def test_classes_without_names_are_numbered(folder: Folder) -> None:
    assert load_dataset(str(folder()), Path()).class_names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": np.zeros(5)}, r"features.npy must be floats \(N, width\), not float64 \(5,\)"),
        ({"features": np.zeros((120, 3), int)}, "must be floats"),
        ({"features": np.zeros((0, 3))}, "must be floats"),
        ({"features": np.array([[{}]], dtype=object)}, "cannot read .*features.npy"),
        ({"labels": np.zeros(3, int)}, r"labels.npy must be class numbers \(120,\)"),
        ({"labels": np.zeros(120)}, "must be class numbers"),
        ({"labels": np.full(120, -1)}, "holds -1"),
        ({"labels": np.full((120, 2), 2)}, "holds 2"),
        ({"names": "a\nb\n"}, "names 2 classes, but labels.npy has 4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(folder: Folder, changes: dict[str, object], said: str) -> None:
    data = folder(**changes)
    with pytest.raises(NestKALAError, match=said):
        load_dataset(str(data), Path())


def test_features_without_labels_are_refused(folder: Folder) -> None:
    data = folder()
    (data / "labels.npy").unlink()
    with pytest.raises(NestKALAError, match=r"no .*labels.npy"):
        load_dataset(str(data), Path())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "features:9"}, "features of width 12: use --backbone features:12, not features:9"),
        ({"backbone": "tiny"}, "use --backbone features:12, not tiny"),
        ({"data": "digits"}, "needs features, but digits holds images"),
    ],
)
def test_backbone_and_data_must_be_a_pair(folder: Folder, changes: dict[str, object], said: str) -> None:
    data = folder()
    with pytest.raises(NestKALAError, match=said):
        train(settings(data, **changes))
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "features"}, "needs the features' width: say features:512"),
        ({"backbone": "features:0"}, "needs the features' width"),
        ({"backbone": "features:wide"}, "needs the features' width"),
        ({"adapter": "clora"}, "set adapter to none"),
        ({"on_broken": "skip"}, "on_broken to error"),
        ({"anchors": "text"}, "has no text tower"),
    ],
)
def test_settings_that_make_no_sense_without_a_backbone(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(NestKALAError, match=said):
        settings(tmp_path / "own", **changes)


def test_a_number_that_is_not_finite_stops_by_row(folder: Folder) -> None:
    features, _ = drawn()
    features[17, 3] = np.nan
    with pytest.raises(NestKALAError, match="row 17 contains numbers that are not finite"):
        train(settings(folder(features)))
    AcceleratorState._reset_state()


def test_features_of_another_width_are_not_encoded(folder: Folder) -> None:
    hasher = Hasher.from_pretrained(train(settings(folder(), epochs=1)))
    AcceleratorState._reset_state()
    with pytest.raises(NestKALAError, match=f"number 0 has 5 numbers, but features:{WIDTH} expects {WIDTH}"):
        hasher.encode(np.zeros((2, 5)))
    with pytest.raises(NestKALAError, match="not a row of float32 numbers"):
        hasher.encode(b"abc")
