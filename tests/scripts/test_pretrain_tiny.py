"""scripts/pretrain_tiny.py: its loss, its texts, its reading of the data, and going on where it stopped."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nestkala.backbones.tiny import network
from nestkala.utils.errors import NestKALAError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain_tiny.py"
CHAINS = [["tabby, tabby cat", "domestic cat, house cat", "cat, true cat", "feline, felid", "thing"]] + [
    [f"thing {i}, synonym {i}", "group a" if i < 5 else "group b, b", "thing"] for i in range(9)
]


class FakeEncoder:
    """Embeddings that depend on the sentence alone."""

    def encode(self, sentences, show_progress_bar=False):
        assert show_progress_bar is False
        assert all(s.startswith("a photo of a ") and s.endswith(".") for s in sentences)
        draws = [np.random.default_rng(list(s.encode())).standard_normal(384) for s in sentences]
        return np.array([draw / np.linalg.norm(draw) for draw in draws], dtype=np.float32).reshape(-1, 384)


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("pretrain_tiny", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "pretrain_tiny", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "load_encoder", FakeEncoder)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two training images and one to check in each of the 200 classes."""
    root, rng = tmp_path_factory.mktemp("tinyimagenet"), np.random.default_rng(0)
    wnids = [line.split("\t")[0] for line in SCRIPT.with_name("tiny_imagenet_synsets.tsv").read_text().splitlines()]
    for split, count in (("train", 2), ("val", 1)):
        for wnid in wnids:
            (root / split / wnid).mkdir(parents=True)
            for i in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                picture.save(root / split / wnid / f"{i}.png")
    return root


def test_loss_is_each_own_text_against_all_that_are_not_own(script):
    torch.manual_seed(0)
    features, embeddings = torch.randn(4, 5).double(), torch.nn.functional.normalize(torch.randn(6, 5).double(), dim=1)
    shares = torch.tensor([[0.5, 0, 0.3, 0, 0, 0.2], [0, 1, 0, 0, 0, 0]]).double()
    labels = torch.tensor([0, 1, 1, 0])
    expected = 0.0
    for x, c in zip(features, labels.tolist(), strict=True):
        logits = [7 * float(x @ k) / float(x.norm()) for k in embeddings]
        others = sum(math.exp(logits[t]) for t in range(6) if shares[c, t] == 0)
        for t in range(6):
            if shares[c, t] > 0:
                expected -= float(shares[c, t]) * math.log(math.exp(logits[t]) / (math.exp(logits[t]) + others)) / 4
    assert script.loss(features, labels, embeddings, shares, 7.0).item() == pytest.approx(expected, rel=1e-9)


def test_texts_are_names_first_then_synonyms_and_what_stands_above(script):
    texts = script.Texts(CHAINS, hypernyms=1.0)
    names = [chain[0].split(", ")[0] for chain in CHAINS]
    embedded = script.embed_names(names) - texts.mean
    embedded = embedded / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(texts.embeddings[: len(names)], embedded)
    torch.testing.assert_close(texts.shares.sum(dim=1), torch.ones(len(CHAINS)))
    # "cat" is a class that results are reported on, "thing" stands above all: neither is a text.
    assert texts.shares.shape == (10, 10 + 10 + 4)
    tabby = texts.shares[0][texts.shares[0] > 0]
    torch.testing.assert_close(tabby.sort().values * 2.5, torch.tensor([0.5, 0.5, 0.5, 1.0]))
    group_a = (texts.shares[1:6] > 0).all(dim=0)
    assert group_a.sum() == 1
    assert not (texts.shares[6:, group_a] > 0).any()


def test_without_hypernyms_a_class_is_drawn_to_its_name_alone(script):
    assert torch.equal(script.Texts(CHAINS, hypernyms=0.0).shares, torch.eye(10))


def test_no_text_of_the_real_classes_is_a_reported_class(script):
    asked = []

    class Listening(FakeEncoder):
        def encode(self, sentences, show_progress_bar=False):
            asked.extend(sentences)
            return super().encode(sentences, show_progress_bar)

    script.load_encoder = Listening
    table = [line.split("\t") for line in script.SYNSETS.read_text().splitlines()]
    script.Texts([chain[1:] for chain in table], 1.0)
    assert len(table) == 200
    assert len(asked) == len(set(asked)) > 500
    assert "a photo of a wheeled vehicle." in asked
    assert not {f"a photo of a {name}." for name in script.REPORTED} & {sentence.lower() for sentence in asked}


def test_augmented_images_are_normalized_and_of_the_same_shape(script):
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    changed = script.augment(images, 0.35)
    assert changed.shape == images.shape
    assert torch.isfinite(changed).all()
    gray = (changed - changed.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0 < gray.sum() < 20


def test_normalization_is_the_backbones(script):
    from nestkala.backbones import load_backbone

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    torch.testing.assert_close(script.normalized(pixels)[0], load_backbone("tiny:random", 0).preprocess(picture))


def test_accuracy_centers_both_sides(script):
    texts = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) + 9
    features = texts.repeat(3, 1) * 4 + 100
    labels = torch.arange(5).repeat(3)
    assert script.accuracy(features, labels, texts) == 1
    assert script.accuracy(features, (labels + 1) % 5, texts) == 0


def test_the_published_layout_is_read_and_made_small(script, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (tmp_path / "val" / "images").mkdir(parents=True)
    (tmp_path / "train" / "n2" / "images").mkdir(parents=True)
    large = Image.fromarray(pixels.repeat(2, axis=0).repeat(2, axis=1))
    large.save(tmp_path / "val" / "images" / "val_0.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "train" / "n2" / "images" / "n2_0.png")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.png\tn2\t0\t0\t62\t62\n")
    images, labels = script.read_split(tmp_path, "val", ["n1", "n2"], show=False)
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), pixels)
    assert labels.tolist() == [1]
    images, labels = script.read_split(tmp_path, "train", ["n1", "n2"], show=False)
    assert np.array_equal(images[0].numpy(), pixels[..., 0][None].repeat(3, axis=0))
    assert labels.tolist() == [1]


def test_a_folder_without_images_is_refused(script, tmp_path):
    with pytest.raises(NestKALAError, match=r"no images of Tiny-ImageNet in .*train"):
        script.read_split(tmp_path, "train", ["n1"], show=False)


def test_the_learning_rate_rises_stays_and_falls_to_nothing(script):
    assert script.schedule(0.015) == pytest.approx(0.5)
    assert script.schedule(0.1) == script.schedule(0.29) == 1
    assert script.schedule(0.65) == pytest.approx(0.5)
    assert script.schedule(1.0) == pytest.approx(0, abs=1e-12)


def test_going_on_after_an_interruption_ends_the_same(script, data, tmp_path, monkeypatch):
    def settings(output):
        return script.Settings(data=data, output=output, epochs=2, batch_size=64, ema=0.5, held_out=30)

    script.main(settings(tmp_path / "whole"))
    export = script.export

    def interrupted(*args):
        export(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "export", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main(settings(tmp_path / "parts"))
    monkeypatch.setattr(script, "export", export)
    script.main(settings(tmp_path / "parts"))

    logs = [
        [json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    for log in logs:
        assert [row["epoch"] for row in log] == [1, 2]
        assert all(0 <= row[key] <= 1 for row in log for key in ("accuracy", "zero_shot_accuracy_held_out"))
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]
    whole, parts = (load_file(tmp_path / run / "tiny.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert whole.keys() == network().state_dict().keys()
    net = network().eval()
    net.load_state_dict({name: value.to(net.state_dict()[name].dtype) for name, value in whole.items()})
    wnids = [line.split("\t")[0] for line in script.SYNSETS.read_text().splitlines()]
    features = script.embed(net, script.read_split(data, "val", wnids, show=False)[0], torch.device("cpu"))
    assert features.norm(dim=1).mean().item() == pytest.approx(10, rel=0.02)
    assert all(value.dtype == torch.float16 for value in whole.values() if value.is_floating_point())
