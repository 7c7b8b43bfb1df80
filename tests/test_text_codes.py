"""Codes of sentences and class names, and images by their nearest class, against products written out."""

import json
from pathlib import Path

import numpy as np
import pytest

from nestkala import Hasher, PrefixIndex
from nestkala.backbones import load_backbone
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError


@pytest.fixture(scope="module")
def images(noise_model: Path) -> Path:
    """What the noise model was trained on, with classes that the built-in text tower knows."""
    folder = noise_model.parent / "named"
    for given, name in {"a": "cat", "b": "dog"}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in (noise_model.parent / "images" / given).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    return folder


def trained(images: Path, folder: Path, **changes: object) -> Path:
    few = {} if "head_init" in changes else {"unlabeled": 20}
    small = {"queries": 2, "lengths": (4, 20), "workers": 0, "cache_gb": 0, "shots": 0} | few
    return train(Config(**(small | {"data": str(images), "output": folder / "run"} | changes)))


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(images, tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def hasher(run: Path) -> Hasher:
    return Hasher.from_pretrained(run, "cpu")


def by_hand(hasher: Hasher, sentences: list[str]) -> np.ndarray:
    embedded = load_backbone("tiny", num_adapted=0).embed_text(sentences).double()
    weight, bias = hasher.model.anchor_to_code.weight.double(), hasher.model.anchor_to_code.bias.double()
    return np.where((embedded @ weight.T + bias).detach().numpy() >= 0, 1, 0)  # (n, 20)


@pytest.mark.parametrize("bits", [None, 1, 7, 20])
def test_a_sentence_has_the_signs_of_its_embedding_in_code_space(hasher: Hasher, bits: int | None) -> None:
    said = ["a photo of a cat.", "a photo of a sports car.", "a photo of a dog."]
    expected = np.packbits(by_hand(hasher, said)[:, : bits or 20], axis=1)
    np.testing.assert_array_equal(hasher.encode_text(said, bits), expected)
    np.testing.assert_array_equal(hasher.encode_text(said[1], bits), expected[1:2])
    np.testing.assert_array_equal(hasher.class_codes(bits), expected[[0, 2]])
    assert hasher.encode_text([], bits).shape == (0, expected.shape[1])


@pytest.mark.parametrize("bits", [1, 9, 20])
def test_sentences_find_the_images_with_the_nearest_codes(hasher: Hasher, images: Path, bits: int) -> None:
    paths = sorted(images.rglob("*.png"))
    codes, said = hasher.encode(paths), ["a photo of a cat.", "a photo of a dog."]
    hits = hasher.search_text(PrefixIndex.build(codes, map(str, paths), 20), said, k=24, bits=bits)
    signs = np.unpackbits(codes, axis=1)[:, :bits]
    for q, row in enumerate(by_hand(hasher, said)[:, :bits]):
        far = {str(path): int((row != own).sum()) for path, own in zip(paths, signs, strict=True)}
        assert [far[name] for name in hits.ids[q]] == hits.distances[q].tolist() == sorted(far.values())


def test_a_class_without_training_has_the_code_of_most_of_its_images(hasher: Hasher, run: Path, images: Path) -> None:
    """Image by image and bit by bit, over the images without labels that the start learned from."""
    paths = [images / name for name in json.loads((run / "split.json").read_text())["gallery"][:20]]
    model = hasher.model
    votes = np.zeros((2, 20))
    for path in paths:
        bits = 2.0 * np.unpackbits(hasher.encode([path]), axis=1)[0, :20] - 1
        tokens = model.tower.trunk(hasher.backbone.prepare(path.read_bytes(), path.name)[None]).float()
        p = model.class_layer.probabilities(model.class_layer.units(model.features(tokens)))[0].tolist()
        votes += np.outer(p, bits)
    codes = 2.0 * np.unpackbits(hasher.class_codes(), axis=1)[:, :20] - 1
    apart = np.sign(votes[0]) != np.sign(votes[1])  # two texts about their mean are opposite: they have no other bits
    assert apart[:16].sum() >= 12
    np.testing.assert_array_equal(codes[:, apart], np.sign(votes)[:, apart])


@pytest.mark.parametrize("bits", [None, 4, 9])
def test_an_image_has_the_class_of_the_largest_product(hasher: Hasher, images: Path, bits: int | None) -> None:
    paths = sorted(images.rglob("*.png"))
    signs = 2 * by_hand(hasher, ["a photo of a cat.", "a photo of a dog."])[:, : bits or 20] - 1
    expected = []
    for h in hasher.relaxed(paths)[:, : bits or 20].tolist():
        products = [sum(a * b for a, b in zip(h, code, strict=True)) for code in signs.tolist()]
        expected.append("cat" if products[0] >= products[1] else "dog")
    assert hasher.classify(paths, bits) == expected
    assert set(expected) == {"cat", "dog"}


@pytest.mark.parametrize(
    ("changes", "sentences", "classes"),
    [
        ({"loss": "csq", "head_init": "random", "shots": 4, "epochs": 1}, False, False),
        ({"loss": "kiddo", "head_init": "random", "shots": 4, "epochs": 1}, True, True),
        ({"loss": "csq", "shots": 4, "epochs": 1}, True, True),
        ({"anchors": "orthonormal", "head_init": "random", "shots": 4, "epochs": 1}, False, True),
    ],
)
def test_text_has_codes_where_training_or_its_start_gave_it_any(
    images: Path, tmp_path: Path, changes: dict[str, object], sentences: bool, classes: bool
) -> None:
    hasher = Hasher.from_pretrained(trained(images, tmp_path, **changes), "cpu")
    if classes:
        assert hasher.class_codes(9).shape == (2, 2)
        assert len(hasher.classify(sorted(images.rglob("*.png"))[:3])) == 3
    else:
        with pytest.raises(NestKALAError, match="cannot encode text: its loss learns only from images"):
            hasher.class_codes()
    if sentences:
        assert hasher.encode_text("a photo of a cat.").shape == (1, 3)
    else:
        with pytest.raises(NestKALAError, match=r"cannot encode (text|sentences)"):
            hasher.encode_text("a photo of a cat.")


def test_a_model_of_before_says_that_it_has_no_text(noise_model: Path) -> None:
    old = Hasher.from_pretrained(noise_model, "cpu")
    spec = {k: v for k, v in old.spec.model_dump().items() if k not in ("text_tower", "has_text_codes")}
    old.spec = type(old.spec)(**json.loads(json.dumps(spec)))
    with pytest.raises(NestKALAError, match="without a text tower, so it cannot encode sentences"):
        old.encode_text("a photo of a cat.")
