"""Text anchors: where they come from, what is said of each class, and what is refused."""

import contextlib
import dataclasses
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from nestkala.backbones import Backbone, load_backbone, tiny_text
from nestkala.backbones.tiny_text import embed_text
from nestkala.settings.config import Config
from nestkala.training.anchors import alike_in_words, class_anchors, class_sentences, orthonormal_anchors, text_center
from nestkala.utils.errors import NestKALAError

CLASSES = ("cat", "traffic_light", "owl")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny", num_adapted=1)


@pytest.fixture
def speaking(backbone: Backbone) -> tuple[Backbone, list[str]]:
    """A backbone with a text tower that counts letters, and the sentences it was given."""
    heard: list[str] = []

    def embed(sentences: list[str]) -> Tensor:
        heard.extend(sentences)
        return torch.tensor([[len(s), s.count("a"), s.count(" ")] for s in sentences]).float()

    return dataclasses.replace(backbone, name="open_clip/hand:made", embed_text=embed), heard


def settings(**values: object) -> Config:
    return Config(backbone="open_clip/ViT-B-32:random", **values)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(NestKALAError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_prompts_say_the_word_for_a_class_where_there_is_one(
    speaking: tuple[Backbone, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    backbone, heard = speaking
    words = {"cat": "small_cat", "owl": "bird {} of prey"}
    class_anchors(settings(class_words=words, prompts=("the {}.",)), backbone, CLASSES, seed=0)
    assert heard == ["the small_cat.", "the traffic light.", "the bird {} of prey."]
    assert not caplog.records
    assert torch.equal(text_center(settings(class_words=words), backbone), text_center(settings(), backbone))
    assert not caplog.records
    del heard[3:]
    class_anchors(settings(class_words={"owls": "x"}, prompts=("a {}",)), backbone, CLASSES, seed=0)
    assert heard[3:] == ["a cat", "a traffic light", "a owl"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == "class_words: there is no class 'owls'; did you mean 'owl'?"


@pytest.mark.parametrize(("num_classes", "width"), [(1, 7), (10, 384), (7, 7)])
def test_few_anchors_are_orthonormal(num_classes: int, width: int) -> None:
    anchors = orthonormal_anchors(num_classes, width, seed=0)
    assert (anchors.shape, anchors.dtype) == ((num_classes, width), torch.float32)
    torch.testing.assert_close(anchors @ anchors.T, torch.eye(num_classes), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("num_classes", "width"), [(8, 7), (100, 3)])
def test_more_anchors_than_dimensions_have_unit_norm_and_are_apart(num_classes: int, width: int) -> None:
    anchors = orthonormal_anchors(num_classes, width, seed=0)
    torch.testing.assert_close(anchors.norm(dim=1), torch.ones(num_classes))
    cosines = anchors @ anchors.T - 2 * torch.eye(num_classes)
    assert cosines.max() < 0.9999


def test_random_anchors_are_of_the_seed_alone() -> None:
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    one = orthonormal_anchors(4, 9, seed=1)
    assert torch.equal(torch.randn(3), expected)
    assert torch.equal(orthonormal_anchors(4, 9, seed=1), one)
    assert not torch.allclose(orthonormal_anchors(4, 9, seed=2), one)


def test_orthonormal_anchors_are_of_the_run_s_seed(backbone: Backbone) -> None:
    anchors = class_anchors(Config(anchors="orthonormal"), backbone, CLASSES, seed=3)
    assert torch.equal(anchors, orthonormal_anchors(3, 384, seed=3))


@pytest.mark.parametrize("source", ["text", "tiny"])
def test_the_built_in_backbone_speaks_for_itself_and_for_others(source: str, backbone: Backbone) -> None:
    timm = "timm/vit_tiny_patch16_224:random"
    config = Config(anchors=source, backbone="tiny" if source == "text" else timm)
    asked = backbone if source == "text" else dataclasses.replace(backbone, name=timm, embed_text=None)
    expected = embed_text(["a photo of a cat.", "a photo of a traffic light.", "a photo of a owl."])
    torch.testing.assert_close(class_anchors(config, asked, CLASSES, seed=0), expected)


def test_all_names_without_an_embedding_are_told_at_once(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    tiny_text._encoder.cache_clear()
    message = refusal(lambda: class_anchors(Config(), backbone, ("cat", "grommix", "florpel"), seed=0))
    assert "'grommix'" in message
    assert "'florpel'" in message
    assert "'cat'" not in message


def test_one_prompt_a_class(speaking: tuple[Backbone, list[str]]) -> None:
    backbone, heard = speaking
    anchors = class_anchors(settings(), backbone, CLASSES, seed=0)
    assert heard == ["a photo of a cat.", "a photo of a traffic light.", "a photo of a owl."]
    assert anchors.tolist() == [[17, 3, 4], [27, 3, 5], [17, 2, 4]]


def test_several_prompts_are_averaged(speaking: tuple[Backbone, list[str]]) -> None:
    anchors = class_anchors(settings(prompts=("{}", "an {}s a")), speaking[0], CLASSES, seed=0)
    assert anchors.tolist() == [[6, 2, 1], [16, 2, 2], [6, 1, 1]]
    assert speaking[1][2:4] == ["traffic light", "an traffic lights a"]


@pytest.mark.parametrize("prompt", ["a {} of {what}", "a {} or {", "{} {0}", "{!x} {}"])
def test_other_braces_in_a_prompt_are_refused_or_kept(prompt: str) -> None:
    with contextlib.suppress(NestKALAError):
        prompts = Config(prompts=(prompt,)).prompts
        assert class_sentences(("cat",), prompts) == [[prompt.replace("{}", "cat")]]


@pytest.mark.parametrize("write", [json.dumps, lambda table: "\n".join(f"{k}: {v}" for k, v in table.items())])
def test_descriptions_stand_for_prompts(
    write: Callable[[dict[str, object]], str], tmp_path: Path, speaking: tuple[Backbone, list[str]]
) -> None:
    table = {"owl": ["a a", "bb"], "traffic_light": "red_green", "cat": ["furry"], "dog": "barks"}
    (tmp_path / "said").write_text(write(table))
    anchors = class_anchors(settings(descriptions=tmp_path / "said"), speaking[0], CLASSES, seed=0)
    assert speaking[1] == ["furry", "red_green", "a a", "bb"]
    assert anchors.tolist() == [[5, 0, 0], [9, 0, 0], [2.5, 1, 0.5]]


@pytest.mark.parametrize(("text", "names"), [("0: zero\n1: one", ("0", "1")), ("2.5: a half\n7: seven", ("7", "2.5"))])
def test_classes_that_are_numbers_can_be_described(text: str, names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "said.yaml").write_text(text)
    words = {line.split(": ")[0]: [line.split(": ")[1]] for line in text.split("\n")}
    assert class_sentences(names, ("{}",), tmp_path / "said.yaml") == [words[name] for name in names]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cat: a\nowl: b\ntrafficlight: c", "'traffic_light'; did you mean 'trafficlight'?"),
        ("traffic_light: a\nowl: b", "'cat'"),
        ("cat: 5\ntraffic_light: a\nowl: b", "'cat'"),
        ("cat: [a, 5]\ntraffic_light: a\nowl: b", "'cat'"),
        ("cat: []\ntraffic_light: a\nowl: b", "'cat'"),
        ("cat: null\ntraffic_light: a\nowl: b", "'cat'"),
        ("cat: {a: b}\ntraffic_light: a\nowl: b", "'cat'"),
        ("- cat", "list"),
        ("some words", "str"),
        ("", "NoneType"),
        ("cat: [", "YAML"),
        (b"\xff\xfe", "YAML"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused_by_file_and_class(
    text: str | bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "said.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal(lambda: class_sentences(CLASSES, ("{}",), path))
    assert str(path) in message
    assert told in message


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_descriptions_that_cannot_be_read_are_named(name: str, tmp_path: Path) -> None:
    assert str(tmp_path / name) in refusal(lambda: class_sentences(CLASSES, ("{}",), tmp_path / name))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_anchors_from_a_file_are_taken_as_they_are(dtype: str, order: str, tmp_path: Path, backbone: Backbone) -> None:
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    np.save(tmp_path / "anchors.npy", np.asarray(values, order=order))
    anchors = class_anchors(Config(anchors=str(tmp_path / "anchors.npy")), backbone, CLASSES, seed=0)
    assert anchors.dtype == torch.float32
    assert anchors.tolist() == values.astype(np.float32).tolist()


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.ones((2, 5)), "(2, 5)"),
        (np.ones(3), "(3,)"),
        (np.ones((3, 5, 1)), "(3, 5, 1)"),
        (np.ones((3, 0)), "(3, 0)"),
        (np.ones((3, 5), int), "int64"),
        (np.ones((3, 5), complex), "complex128"),
        (np.full((3, 5), "a"), "<U1"),
        (np.array([[None] * 5] * 3), "Python objects"),
        (np.full((3, 5), np.nan), "not finite"),
        (np.full((3, 5), np.inf), "not finite"),
        (np.full((3, 5), 1e300), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.dtype),
)
def test_a_file_of_other_anchors_is_refused(array: np.ndarray, told: str, tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "anchors.npy"
    np.save(path, array)
    message = refusal(lambda: class_anchors(Config(anchors=str(path)), backbone, CLASSES, seed=0))
    assert str(path) in message
    assert told in message


def test_a_pickle_is_never_run(tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "anchors.npy"
    witness = tmp_path / "run"

    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    path.write_bytes(pickle.dumps(Harmful()))
    refusal(lambda: class_anchors(Config(anchors=str(path)), backbone, CLASSES, seed=0))
    np.save(path, np.array([Harmful()] * 3))
    refusal(lambda: class_anchors(Config(anchors=str(path)), backbone, CLASSES, seed=0))
    assert not witness.exists()
    np.load(path, allow_pickle=True)
    assert witness.exists()


@pytest.mark.parametrize("content", [b"", b"some words", None, "archive"])
def test_a_file_that_is_no_array_is_refused(content: bytes | str | None, tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "anchors.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "archive":
        with path.open("wb") as file:
            np.savez(file, np.ones((3, 5)))
    message = refusal(lambda: class_anchors(Config(anchors=str(path)), backbone, CLASSES, seed=0))
    assert str(path) in message


def test_a_truncated_array_is_refused(tmp_path: Path, backbone: Backbone) -> None:
    path = tmp_path / "anchors.npy"
    np.save(path, np.ones((3, 5)))
    path.write_bytes(path.read_bytes()[:-8])
    assert str(path) in refusal(lambda: class_anchors(Config(anchors=str(path)), backbone, CLASSES, seed=0))


def test_a_backbone_without_text_tower_says_what_else_there_is(backbone: Backbone) -> None:
    mute = dataclasses.replace(backbone, name="timm/vit_tiny_patch16_224:random")
    message = refusal(lambda: class_anchors(Config(backbone="timm/vit_tiny_patch16_224:random"), mute, CLASSES, seed=0))
    assert "timm/vit_tiny_patch16_224:random has no text tower" in message
    for source in ("open_clip/MODEL:WEIGHTS", ".npy", "orthonormal"):
        assert source in message


def test_text_that_is_not_finite_is_refused(backbone: Backbone) -> None:
    broken = dataclasses.replace(backbone, embed_text=lambda sentences: torch.full((len(sentences), 2), torch.nan))
    assert "not finite" in refusal(lambda: class_anchors(settings(), broken, CLASSES, seed=0))


def test_another_models_text_tower_serves_a_backbone_without_one(backbone: Backbone) -> None:
    import open_clip

    name = "ViT-B-32-quickgelu"
    config = Config(anchors=f"open_clip/{name}:random", prompts=("a photo of a {}.", "the {}"))
    anchors = class_anchors(config, backbone, CLASSES[:2], seed=0)
    assert (anchors.shape, anchors.dtype, anchors.requires_grad) == ((2, 512), torch.float32, False)

    torch.manual_seed(0)
    clip = open_clip.create_model(name, pretrained=None).eval()
    sentences = ["a photo of a cat.", "the cat", "a photo of a traffic light.", "the traffic light"]
    with torch.no_grad():
        expected = clip.encode_text(open_clip.tokenize(sentences)).view(2, 2, 512).mean(dim=1)
    torch.testing.assert_close(anchors, expected, rtol=1e-4, atol=1e-5)
    assert (anchors[0] - anchors[1]).abs().max() > 1e-3


# Anchors that are the same


def test_descriptions_that_differ_beyond_what_the_tower_reads_are_told(tmp_path: Path) -> None:
    tower = load_backbone("open_clip/ViT-S-32:random", num_adapted=0)
    same = "a photo of a small furry animal, " * 20  # 77 tokens at most are read
    said = {"cat": same + "that meows", "dog": same + "that barks", "owl": "a photo of an owl."}
    (tmp_path / "said.json").write_text(json.dumps(said))
    anchors = class_anchors(settings(descriptions=tmp_path / "said.json"), tower, tuple(said), seed=0)
    (line,) = alike_in_words(anchors, tuple(said))
    assert line.startswith("warning: the classes 'cat' and 'dog' have the same text anchor")
    named = class_anchors(settings(), tower, tuple(said), seed=0)
    assert alike_in_words(named, tuple(said)) == []


def test_every_class_with_an_earlier_ones_anchor_is_told() -> None:
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]])
    lines = alike_in_words(anchors, "abcdefg")
    assert [line.split("'")[1::2] for line in lines] == [["a", "c"], ["b", "d"], ["b", "e"]]


def test_descriptions_are_found_whatever_form_of_unicode_their_class_is_in(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (tmp_path / "said.yaml").write_text(f"{decomposed}: a place\n", encoding="utf-8")
    for name in (composed, decomposed):
        assert class_sentences([name], ["{}"], tmp_path / "said.yaml") == [["a place"]]
    (tmp_path / "said.yaml").write_text(f"{decomposed}: a place\n{composed}: another\n", encoding="utf-8")
    assert "describes the class 'café' twice" in refusal(
        lambda: class_sentences([composed], ["{}"], tmp_path / "said.yaml")
    )
