"""Kinds of things in an archive that nobody named: how many there are, what they take, what becomes of the codes."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nestkala import Hasher
from nestkala.cli import main
from nestkala.codes import pack
from nestkala.data import load_dataset
from nestkala.evaluation import evaluate
from nestkala.settings.config import Config
from nestkala.training.closed_form.classes import fit_classes
from nestkala.training.closed_form.mixture import SHARPNESS, clusters, held_out_likelihood
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError
from tests.training.test_closed_form import NONE, World, before, named, normal, seeded, started


def fitted(
    world: World, images: Tensor, known: list[int], shots: int = 0, unnamed: int | None = None, text: bool = True
) -> tuple[Tensor, int]:
    """The class of each image, by place among the known ones, -1 for none; and how many kinds had no name."""
    labeled, targets = NONE, torch.zeros(0, len(known))
    if shots:
        labeled, every = world.labeled([shots if c in known else 0 for c in range(world.classes)])
        targets = every[:, known]
    names = world.names
    center = names.mean(dim=0)  # of texts about anything
    found = fit_classes(
        images, labeled, targets, names[known] if text else None, seeded(0), center if text else None, unnamed
    )
    best = named(found, images)
    return torch.where(best < len(known), best, -1), len(found.prototypes) - len(known)


def expected(labels: Tensor, known: list[int]) -> Tensor:
    places = torch.full((int(labels.max()) + 1,), -1)
    places[known] = torch.arange(len(known))
    return places[labels]


@pytest.mark.parametrize(("shots", "text"), [(0, True), (4, True), (4, False)])
def test_three_named_classes_among_thirty_take_only_their_own(shots: int, text: bool) -> None:
    world, known = World(30, apart=6.0), [4, 11, 20]
    images, labels = world.some(3000)
    truth = expected(labels, known)
    found, unnamed = fitted(world, images, known, shots, text=text)
    assert 10 <= unnamed <= 60
    of_named = truth >= 0
    assert (found == truth)[of_named].float().mean() > 0.8
    assert (found == -1)[~of_named].float().mean() > 0.95
    closed, none = fitted(world, images, known, shots, unnamed=0, text=text)
    assert none == 0
    assert (closed == -1).sum() == 0


@pytest.mark.parametrize("shots", [0, 1, 4])
@pytest.mark.parametrize("classes", [4, 20])
def test_where_every_kind_is_named_there_are_no_others(classes: int, shots: int) -> None:
    world = World(classes, apart=6.0)
    images, labels = world.some(1500)
    every = list(range(classes))
    found, unnamed = fitted(world, images, every, shots)
    assert unnamed == 0
    assert torch.equal(found, fitted(world, images, every, shots, unnamed=0)[0])
    assert (found == labels).float().mean() > 0.8


def test_classes_broader_than_the_clusters_are_all_there_is() -> None:
    """Two classes of ten kinds of things each: labeled images of one class are of many clusters."""
    world = World(20, apart=6.0)
    images, _ = world.some(2000)
    labeled, kinds = world.labeled([1] * 20)
    targets = torch.stack([kinds[:, :10].sum(dim=1), kinds[:, 10:].sum(dim=1)], dim=1)
    found = fit_classes(images, labeled, targets, None, seeded(0), None, None)
    assert len(found.prototypes) == 2


def test_their_number_can_be_said() -> None:
    world = World(12, apart=6.0)
    images, _ = world.some(600)
    for number in (0, 1, 9):
        assert fitted(world, images, [0, 1, 2], unnamed=number)[1] == number
        assert fitted(world, images, [0, 1, 2], shots=5, unnamed=number)[1] == number


def test_codes_of_an_archive_whose_kinds_are_mostly_unnamed_tell_these_apart() -> None:
    """With 3 of 30 kinds named, 32 bits rank the images of every kind better than where all must be of the 3."""
    world, known = World(30, apart=6.0), [4, 11, 20]
    images, labels = world.some(2000)
    names = world.names
    hot = np.eye(30, dtype=bool)[labels.numpy()]
    reached = []
    for kinds in (0, "auto"):
        model = before(names[known], (32,))
        start = started(model, images, text_center=names.mean(dim=0), unnamed_kinds=kinds)
        assert start.class_codes.shape == (3, 32)
        with torch.no_grad():
            codes = pack(model(images)[0].numpy())
        reached.append(evaluate(codes[:300], hot[:300], codes[300:], hot[300:], (32,))[32].map_tie_aware)
        assert (kinds == 0) == (start.num_unnamed == 0)
    assert reached[1] > 0.95 > reached[0] + 0.1  # chance is 0.03


def test_held_out_likelihood_is_that_of_a_mixture_whose_frequencies_the_others_gave() -> None:
    prototypes, fit, held = (F.normalize(normal(n, 3, seed=n).double(), dim=1) for n in (2, 40, 7))

    def density(x: Tensor, weight: float) -> float:
        a, b = (math.exp(SHARPNESS * float(x @ p)) for p in prototypes)
        return math.log(weight * a + (1 - weight) * b)

    weight = 0.5
    for _ in range(10):  # expectation maximization, image by image
        shares = [weight * math.exp(SHARPNESS * float(x @ prototypes[0])) / math.exp(density(x, weight)) for x in fit]
        weight = sum(shares) / len(shares)
    wanted = sum(density(x, weight) for x in held) / len(held)
    assert held_out_likelihood(prototypes, fit, held) == pytest.approx(wanted, rel=1e-6)


def test_clusters_that_lie_apart_are_found_one_by_one() -> None:
    centers = torch.eye(8)
    units = F.normalize(centers.repeat(25, 1) + 0.05 * normal(200, 8), dim=1)
    found = clusters(units, 8, seeded(0))
    nearest = (found @ centers.T).argmax(dim=1)
    assert sorted(nearest.tolist()) == list(range(8))
    assert ((found * centers[nearest]).sum(dim=1) > 0.99).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two digits with labels, beside an archive of all ten, with room for 8 kinds that have no name."""
    folder = tmp_path_factory.mktemp("digits")
    digits = load_dataset("digits", Path())
    of_class = [np.flatnonzero(digits.targets[:, c]) for c in range(10)]
    for c in range(10):
        for number, index in enumerate(of_class[c][:12]):
            name = f"labeled/{digits.class_names[c]}" if number < 4 else "photos"
            if number < 4 and c > 1:
                continue
            path = folder / name / f"{c}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(digits.read(index))
    given = {"data": str(folder / "labeled"), "archive": folder / "photos", "queries": 0, "unnamed_kinds": 8}
    small = {"lengths": (8, 32), "workers": 0, "cache_gb": 0, "backbone": "tiny", "output": folder / "run"}
    return train(Config(**(given | small)))


def test_a_model_says_none_of_its_classes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((run / "metrics.json").read_text())["unnamed_kinds"] == 8
    saved = json.loads((run / "model.json").read_text())
    assert (saved["version"], saved["num_unnamed"], len(saved["class_names"])) == (5, 8, 2)
    hasher = Hasher.from_pretrained(run, "cpu")
    assert hasher.class_codes().shape == (2, 4)
    photos = sorted((run.parent / "photos").glob("*.png"))
    found = hasher.classify(photos)
    right = [name == {"0": "zero", "1": "one"}.get(path.name[0]) for name, path in zip(found, photos, strict=True)]
    assert np.mean(right) > 0.6  # 0.2 if every image were given one of the names
    assert main(["classify", str(run), str(run.parent / "photos"), "--bits", "32", "--json"]) == 0
    by_image = json.loads(capsys.readouterr().out)
    assert list(by_image.values()) == found
    assert main(["classify", str(run), str(run.parent / "photos"), "--bits", "32"]) == 0
    assert capsys.readouterr().out.count("(none of the classes)") == found.count(None)


def test_none_of_the_classes_is_as_likely_as_all_kinds_without_a_name(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hasher = Hasher.from_pretrained(run, "cpu")
    layer = hasher.model.class_layer
    assert layer is not None
    photos = sorted((run.parent / "photos").glob("*.png"))
    assert main(["classify", str(run), str(run.parent / "photos"), "--top", "9", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    right = []
    for photo in photos:
        tokens = hasher.backbone.tower.trunk(hasher.backbone.prepare(photo.read_bytes(), "")[None])
        with torch.no_grad():
            units = layer.units(hasher.model.features(tokens.float()))[0]
        directions = F.normalize(layer.prototypes.detach(), dim=1)
        cosines = F.normalize(units @ layer.whitening, dim=0) @ directions.T
        weights = np.exp(13.0 * cosines.double().numpy())
        first, second = weights[:2] / weights.sum()
        expected = {hasher.class_names[0]: first, hasher.class_names[1]: second, None: 1 - first - second}
        ranked = {each["class"]: each["probability"] for each in said[str(photo)]}
        assert ranked == pytest.approx(expected, abs=2e-3)
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
        right.append(next(iter(ranked)) == {"0": "zero", "1": "one"}.get(photo.name[0]))
    assert np.mean(right) > 0.6  # 0.2 if every image were given one of the names


def test_the_nearest_of_all_codes_decides(run: Path) -> None:
    """Image by image, with the code of each unnamed kind from what an image in its midst would give."""
    hasher = Hasher.from_pretrained(run, "cpu")
    layer, head = hasher.model.class_layer, hasher.model.head
    assert layer is not None
    midst = []
    prototypes = layer.prototypes.detach().double()
    for prototype in prototypes[2:]:
        x = torch.linalg.lstsq(layer.whitening.double().T, prototype[:, None]).solution[:, 0]
        u = x / x.norm()
        cosines = [float(F.cosine_similarity(u @ layer.whitening.double(), p, dim=0)) for p in prototypes]
        p = torch.tensor([math.exp(13 * c) for c in cosines])
        row = torch.cat([u, (p / p.sum()).double()])
        midst.append(torch.where(head.linear.weight.double() @ row + head.linear.bias.double() >= 0, 1.0, -1.0))
    named_codes = 2.0 * np.unpackbits(hasher.class_codes(), axis=1) - 1
    codes = torch.cat([torch.from_numpy(named_codes), torch.stack(midst)])
    photos = sorted((run.parent / "photos").glob("*.png"))
    best = (torch.from_numpy(hasher.relaxed(photos)).double() @ codes.T).argmax(dim=1).tolist()
    assert hasher.classify(photos) == [hasher.class_names[b] if b < 2 else None for b in best]


@pytest.mark.parametrize("kinds", [-1, 1001, True, 2.5, "some"])
def test_a_number_that_is_none_is_refused(kinds: object) -> None:
    with pytest.raises(NestKALAError, match="unnamed_kinds must be a whole number of 0 to 1000, or auto, not "):
        Config(unnamed_kinds=kinds)
