"""The start in closed form, part by part, against brute force and closed solutions of other kinds."""

import itertools
import math
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.heads import FlatHashHead
from nestkala.losses import nested_centers
from nestkala.modeling.model import HashModel
from nestkala.settings.config import Config
from nestkala.training.closed_form import Start, closed_form, default_class_bits
from nestkala.training.closed_form.arrangement import arrange
from nestkala.training.closed_form.bits import class_rows, detail_rows, rotated_components
from nestkala.training.closed_form.classes import Classes, fit_classes
from nestkala.training.closed_form.text import fit_text, ridge_regression, scale_to_labels
from nestkala.training.zero_shot import zero_shot_labels
from nestkala.utils.errors import NestKALAError

WIDTH = 32


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


class World:
    """Gaussian classes that share a covariance which hides them from whoever does not know it.

    Args:
        classes: C.
        seed: of means, covariance and images.
        width: d.
        apart: norm of the classes' means.
    """

    def __init__(self, classes: int, seed: int = 0, width: int = WIDTH, apart: float = 3.0) -> None:
        self.classes, self._generator = classes, seeded(seed)
        self.means = apart * F.normalize(self._normal(classes, width), dim=1)
        self.spread = 0.6 * self._normal(width, width) / width**0.5 + 0.6 * torch.eye(width)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)

    def images(self, labels: Tensor) -> Tensor:
        """Features (n, d) of images of these classes (n), or of all whose multi-hot labels (n, C) are given."""
        means = self.means[labels] if labels.ndim == 1 else F.normalize(labels @ self.means, dim=1) * 3
        return means + self._normal(*means.shape) @ self.spread + 5

    def some(self, count: int) -> tuple[Tensor, Tensor]:
        """Features (count, d) and classes (count) of any images."""
        labels = torch.randint(self.classes, (count,), generator=self._generator)
        return self.images(labels), labels

    def labeled(self, counts: list[int]) -> tuple[Tensor, Tensor]:
        """Features and one-hot labels of so many images of each class."""
        labels = torch.arange(self.classes).repeat_interleave(torch.tensor(counts))
        return self.images(labels), F.one_hot(labels, self.classes).float()

    @property
    def names(self) -> Tensor:
        """Directions of the classes that are nearly right, about a mean of their own."""
        return self.means + 0.5 * self._normal(*self.means.shape) + 9

    def oracle(self, features: Tensor) -> Tensor:
        """The classes that who knows means and covariance would name: Bayes' rule."""
        inverse = torch.linalg.inv(self.spread.T @ self.spread)
        means = self.means + 5
        return (features @ inverse @ means.T - 0.5 * ((means @ inverse) * means).sum(dim=1)).argmax(dim=1)


NONE = torch.zeros(0, WIDTH)


def fitted(
    world: World,
    unlabeled: Tensor,
    labeled: Tensor = NONE,
    targets: Tensor | None = None,
    texts: Tensor | None = None,
) -> Classes:
    targets = torch.zeros(len(labeled), world.classes) if targets is None else targets
    return fit_classes(unlabeled, labeled, targets, texts, seeded(0))


def named(classes: Classes, features: Tensor) -> Tensor:
    """The class (n) of each feature (n, d), as a class layer would have it, written out."""
    units = F.normalize((features - classes.mean) @ classes.basis, dim=1)
    return (F.normalize(units @ classes.whitening, dim=1) @ classes.prototypes.T).argmax(dim=1)


def accuracy(found: Tensor, labels: Tensor) -> float:
    return (found == labels).float().mean().item()


def by_nearest_mean(labeled: Tensor, targets: Tensor, features: Tensor) -> Tensor:
    means = targets.T @ labeled / targets.sum(dim=0)[:, None]
    return torch.cdist(features, means).argmin(dim=1)


# Classes


@pytest.mark.parametrize("classes", [5, 12])
@pytest.mark.parametrize("given", ["names", "wrong names, labels", "labels", "names, labels", "uneven labels"])
def test_images_without_labels_bring_it_near_to_bayes(given: str, classes: int) -> None:
    """Though the labels alone, by the nearest mean, fall far behind."""
    for seed in range(2):
        world = World(classes, seed)
        unlabeled, _ = world.some(600)
        counts = [1, 2, 9, *[3] * (classes - 3)] if "uneven" in given else [4] * classes
        labeled, targets = world.labeled(counts)
        names = world.names if given.startswith("names") else None
        if "wrong" in given:
            names = world.means.roll(1, dims=0)
        if "labels" not in given:
            labeled, targets = labeled[:0], targets[:0]
        found = fitted(world, unlabeled, labeled, targets, names)
        images, labels = world.some(1000)
        best = accuracy(world.oracle(images), labels)
        assert best > 0.99
        assert accuracy(named(found, images), labels) > best - 0.04
        if len(labeled):
            assert accuracy(by_nearest_mean(labeled, targets, images), labels) < best - 0.1
        if "wrong" in given:
            assert found.text_sharpness == 0
        if names is None:
            assert found.text_sharpness == 0
        torch.testing.assert_close(found.prototypes.norm(dim=1), torch.ones(classes))
        torch.testing.assert_close(found.basis.T @ found.basis, torch.eye(WIDTH), atol=1e-4, rtol=0)


def test_without_unlabeled_images_it_is_no_worse_than_the_nearest_mean() -> None:
    gains, means = [], []
    for seed in range(8):
        world = World(6, seed)
        labeled, targets = world.labeled([4] * 6)
        images, labels = world.some(1000)
        means.append(accuracy(by_nearest_mean(labeled, targets, images), labels))
        gains.append(accuracy(named(fitted(world, NONE, labeled, targets), images), labels) - means[-1])
    assert np.mean(gains) > 0
    assert min(gains) > -2 * np.std(means)


def test_a_class_without_labels_is_known_by_its_name() -> None:
    world = World(5)
    labeled, targets = world.labeled([4, 4, 4, 4, 0])
    names = world.names
    images, labels = world.some(1000)
    others = accuracy(by_nearest_mean(labeled, targets.clamp(min=1e-9), images), labels)
    for unlabeled, least in ((world.some(600)[0], 0.95), (NONE, others)):
        found = fitted(world, unlabeled, labeled, targets, names)
        assert accuracy(named(found, images)[labels == 4], labels[labels == 4]) > 0.5
        assert accuracy(named(found, images), labels) > least


def test_several_labels_an_image() -> None:
    world = World(8)
    both = torch.zeros(700, 8)
    for row, seed in zip(both, range(700), strict=True):
        row[torch.randperm(8, generator=seeded(seed))[: 1 + seed % 2]] = 1
    images = world.images(both)
    found = fitted(world, images[40:400], images[:40], both[:40], world.names)
    right = both[400:].gather(1, named(found, images[400:])[:, None]).mean().item()
    assert right > 0.9
    assert found.accuracy is not None
    assert 0.6 < found.accuracy <= 1


def test_fewer_images_than_dimensions() -> None:
    """On average better than the nearest mean; a single draw of 20 can mislead."""
    right, nearest = [], []
    for seed in range(6):
        world = World(4, seed, width=64, apart=4.0)
        labeled, targets = world.labeled([2] * 4)
        images, labels = world.some(500)
        found = fitted(world, world.some(20)[0], labeled, targets)
        assert all(getattr(found, name).isfinite().all() for name in ("basis", "whitening", "prototypes", "variances"))
        nearest.append(accuracy(by_nearest_mean(labeled, targets, images), labels))
        right.append(accuracy(named(found, images), labels))
    assert np.mean(right) > np.mean(nearest)
    assert min(np.subtract(right, nearest)) > -2 * np.std(nearest)


def test_eigenvectors_of_few_images_of_many_dimensions_are_found() -> None:
    """Most of whose eigenvalues are 0, which single precision does not get through on every machine."""
    for count in (2, 8, 24):
        images = normal(count, 1280).relu()
        images[:, 700:] = 0
        found = fit_classes(images, images[:0], torch.zeros(0, 3), normal(3, 1280, seed=1), seeded(0))
        centered = (images - images.mean(dim=0)).double()
        expected = torch.linalg.svdvals(centered).square() / count
        torch.testing.assert_close(found.variances[:count].double(), expected, atol=1e-4, rtol=1e-4)
        assert all(getattr(found, name).isfinite().all() for name in ("basis", "whitening", "prototypes"))


def test_names_that_mislead_do_not_tear_clusters_apart() -> None:
    """Two names lie in one cluster and none in another: with no label to tell, it is the likelier that counts."""
    for seed in range(4):
        world = World(5, seed, apart=4.0)
        names = world.means.clone()
        names[1] = world.means[0] + 0.1 * world.means[1]
        images, labels = world.some(800)
        found = named(fitted(world, images, texts=names), images)
        by_name = named_by_text(images, names)
        shares = [
            (F.one_hot(labels, 5).float().T @ F.one_hot(each, 5).float() / len(images)).numpy()
            for each in (found, by_name)
        ]
        kept, torn = (share[linear_sum_assignment(share, maximize=True)].sum() for share in shares)
        assert kept > 0.97
        assert torn < 0.9


def named_by_text(images: Tensor, names: Tensor) -> Tensor:
    return zero_shot_labels(F.normalize(images - images.mean(dim=0), dim=1), names)


TEXT_GRID, LABEL_GRID = (0.0, 5.0, 10.0, 15.0, 30.0, 60.0), (5.0, 10.0, 15.0, 30.0, 60.0)


@pytest.mark.parametrize("texts", ["names", "wrong names", "none"])
def test_trust_and_accuracy_are_those_of_leaving_each_label_out(texts: str) -> None:
    """Each labeled image's scores from sums that are made anew without it; in double precision, row by row."""
    world = World(6, seed=3, apart=2.0)
    unlabeled = world.some(100)[0].double()
    labeled, targets = (each.double() for each in world.labeled([2, 3, 4, 5, 6, 2]))
    targets[0, 3] = targets[5, 0] = 1  # two labels
    names = {"names": world.names, "wrong names": world.means.roll(2, dims=0), "none": None}[texts]
    found = fitted(world, unlabeled, labeled, targets, None if names is None else names.double())

    images = torch.cat([unlabeled, labeled]).numpy()
    values, vectors = np.linalg.eigh(np.cov(images.T, bias=True))
    half = np.diag((np.maximum(values, 0) + 2 * values.mean()) ** -0.25)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    known = unit((labeled.numpy() - images.mean(axis=0)) @ vectors)
    said = unit((names - names.mean(dim=0)).double().numpy() @ vectors) if names is not None else np.zeros((6, WIDTH))
    halved, text_part = unit(known @ half), unit(said @ half) if names is not None else said
    by_text, by_label = np.zeros((2, len(known), 6))
    for i, c in itertools.product(range(len(known)), range(6)):
        others = [halved[j] for j in range(len(known)) if j != i and targets[j, c]]
        by_text[i, c], by_label[i, c] = known[i] @ said[c], halved[i] @ unit(0.5 * text_part[c] + sum(others))

    def likelihood(text: float, label: float) -> float:
        total = 0.0
        for row, labels in zip(text * by_text + label * by_label, targets.numpy(), strict=True):
            log = row - np.log(np.exp(row).sum())
            total += log[labels > 0].mean()
        return total

    grid = itertools.product(TEXT_GRID if names is not None else (0.0,), LABEL_GRID)
    best = max(grid, key=lambda pair: likelihood(*pair))
    assert (found.text_sharpness, found.label_sharpness) == best
    right = [targets[i, (best[0] * by_text + best[1] * by_label)[i].argmax()].item() for i in range(len(known))]
    assert found.accuracy == pytest.approx(np.mean(right))
    assert 0.3 < found.accuracy < 1


def test_one_label_a_class_tells_how_far_to_trust_names_but_has_none_left_out() -> None:
    world = World(8)
    unlabeled, (labeled, targets) = world.some(200)[0], world.labeled([1] * 8)
    right = fitted(world, unlabeled, labeled, targets, world.names)
    wrong = fitted(world, unlabeled, labeled, targets, world.means.roll(3, dims=0))
    assert (right.accuracy, wrong.accuracy) == (None, None)
    assert wrong.text_sharpness == 0 < right.text_sharpness


# The order of centers


def agreement(centers: Tensor, similarity: Tensor) -> float:
    """sum_ij similarity_ij <center_i, center_j>, the k-th bit counting 1 / k, over pairs of two classes; by loops."""
    c, s = centers.double().numpy(), similarity.double().numpy()
    weights = 1 / np.arange(1, c.shape[1] + 1)
    return sum(s[i, j] * (weights * c[i] * c[j]).sum() for i, j in itertools.permutations(range(len(c)), 2))


def similar(classes: int, seed: int) -> Tensor:
    mixed = torch.rand(classes, 3, generator=seeded(seed), dtype=torch.float64)
    return mixed @ mixed.T


def rows_of(centers: Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, centers.tolist()))


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6])
def test_few_centers_are_arranged_nearly_as_well_as_they_can_be(classes: int) -> None:
    shares = []
    for seed in range(8):
        centers, similarity = nested_centers(classes, 12, seeded(seed)).double(), similar(classes, seed)
        found = arrange(centers, similarity)
        assert rows_of(found) == rows_of(centers)
        every = [agreement(centers[list(order)], similarity) for order in itertools.permutations(range(classes))]
        assert agreement(found, similarity) >= agreement(centers, similarity) - 1e-9
        any_order, best = float(np.mean(every)), max(every)
        if best > any_order + 1e-9:
            shares.append((agreement(found, similarity) - any_order) / (best - any_order))
    assert np.mean(shares or [1]) > 0.9
    assert min(shares, default=1) > 0.5


@pytest.mark.parametrize("classes", [7, 40])
def test_no_swap_of_two_centers_helps_any_more(classes: int) -> None:
    centers, similarity = nested_centers(classes, 16, seeded(1)).double(), similar(classes, 1)
    found = arrange(centers, similarity)
    assert rows_of(found) == rows_of(centers)
    best = agreement(found, similarity)
    assert best > agreement(centers, similarity)
    for i, j in itertools.combinations(range(classes), 2):
        swapped = found.clone()
        swapped[[i, j]] = found[[j, i]]
        assert agreement(swapped, similarity) <= best + 1e-9


# Bits


def test_how_many_bits_are_for_the_class() -> None:
    table = {1: 1, 8: 8, 15: 15, 16: 16, 17: 16, 32: 16, 33: 16, 48: 24, 63: 31, 64: 32, 65: 32, 512: 32}
    assert {bits: default_class_bits(bits) for bits in table} == table


def test_where_the_class_is_certain_the_class_bits_are_its_center() -> None:
    """But in images so far off along a bit's direction that 0.4 of their deviations, or less at first, exceed 1."""
    classes, bits, count = 6, 24, 500
    units = F.normalize(normal(count, 10, dtype=torch.float64) * torch.linspace(1, 3, 10), dim=1)
    whitening = torch.diag(torch.linspace(2, 0.5, 10, dtype=torch.float64))
    centers = nested_centers(classes, bits, seeded(0)).double()
    labels = torch.arange(count) % classes
    rows = class_rows(units, whitening, centers, seeded(0))
    assert rows.shape == (bits, 10 + classes)
    mean = units.mean(dim=0)
    logits = torch.cat([units - mean, F.one_hot(labels, classes).double()], dim=1) @ rows.T
    own = logits - centers[labels]  # what the image itself adds
    deviations = own / own.std(dim=0).clamp(min=1e-12)
    share = [0.4 * min(1, k / (2.5 * math.log2(classes))) for k in range(bits)]
    assert not own[:, 0].any()
    torch.testing.assert_close(own.std(dim=0), torch.tensor(share, dtype=torch.float64), atol=1e-9, rtol=1e-6)
    near = deviations.abs() * torch.tensor(share) < 1
    assert near[:, : bits // 4].all()
    assert near.double().mean() > 0.98
    assert torch.equal(logits.sign()[near], centers[labels][near])
    directions = rows[:, :10] @ torch.linalg.inv(whitening)  # of the images whitened: all of one length each block
    blocks = F.normalize(directions[1:10], dim=1)
    torch.testing.assert_close(blocks @ blocks.T, torch.eye(9, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("bits", [3, 10, 27])
def test_detail_bits_look_at_the_image_alone(bits: int) -> None:
    classes, count, width = 4, 400, 10
    labels = torch.arange(count) % classes
    units = F.normalize(2 * normal(classes, width)[labels] + normal(count, width, seed=1), dim=1).double()
    values, vectors = np.linalg.eigh(np.cov(units.numpy().T, bias=True))
    units, variances = units @ torch.from_numpy(vectors), torch.from_numpy(values)
    rows = detail_rows(units, F.one_hot(labels, classes).double(), variances, variances.mean(), bits, seeded(0))
    assert rows.shape == (bits, width + classes)
    assert not rows[:, width:].any()
    signs = ((units - units.mean(dim=0)) @ rows[:, :width].T).sign()
    assert (signs.std(dim=0) > 0.5).all()

    # By hand: half whitened, a part of the span of the classes' means taken out, before and after.
    half = (values + 0.5 * values.mean()) ** -0.25
    images = (units - units.mean(dim=0)).numpy() * half
    means = np.array([images[labels.numpy() == c].mean(axis=0) for c in range(classes)])
    span = np.linalg.qr(means[1:].T).Q  # the means' mean is 0: three of them span it
    damped = np.eye(width) - 0.3 * span @ span.T
    axes = (rows[:, :width].numpy() / half) @ np.linalg.inv(damped)  # the rotated components of what is left
    principal = np.linalg.svd(images @ damped, full_matrices=False)[2]
    for start in range(0, bits, width):
        block = axes[start : start + width]
        leading = principal[: len(block)]
        np.testing.assert_allclose(block @ block.T, np.eye(len(block)), atol=1e-8)
        np.testing.assert_allclose(block @ leading.T @ leading, block, atol=1e-7)


def test_rotated_directions_are_orthonormal_block_by_block_and_lose_less_by_signs() -> None:
    scales = torch.linspace(3, 0.2, 12).double()
    for seed in range(4):
        images = normal(600, 12, seed=seed, dtype=torch.float64) * scales
        images = (images - images.mean(dim=0)) @ torch.linalg.qr(normal(12, 12, seed=9, dtype=torch.float64)).Q
        for bits in (4, 12, 29):
            found = rotated_components(images, bits, seeded(seed))
            assert found.shape == (12, bits)
            principal = torch.linalg.svd(images, full_matrices=False).Vh.T  # (12, 12)
            for block in found.split(12, dim=1):
                size = block.shape[1]
                torch.testing.assert_close(block.T @ block, torch.eye(size).double(), atol=1e-9, rtol=0)
                leading = principal[:, :size]
                torch.testing.assert_close(leading @ (leading.T @ block), block, atol=1e-8, rtol=0)
                assert loss_by_signs(images @ block) <= loss_by_signs(images @ leading)
                turns = [torch.linalg.qr(normal(size, size, seed=n, dtype=torch.float64)).Q for n in range(20)]
                assert loss_by_signs(images @ block) < np.mean([loss_by_signs(images @ leading @ q) for q in turns])
        assert not torch.allclose(found[:, :12], found[:, 12:24])


def loss_by_signs(projected: Tensor) -> float:
    return (projected - projected.sign()).square().sum().item()


# Texts


def test_ridge_regression_is_least_squares_on_stacked_rows() -> None:
    inputs, outputs = normal(9, 5, dtype=torch.float64).numpy(), normal(9, 4, seed=1, dtype=torch.float64).numpy()
    counts = np.array([1.0, 2, 0.5, 10, 3, 1, 1, 0, 4])
    stacked = np.vstack([np.sqrt(counts)[:, None] * inputs, np.sqrt(0.7) * np.eye(5)])
    wanted = np.vstack([np.sqrt(counts)[:, None] * outputs, np.zeros((5, 4))])
    expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0].T
    found = ridge_regression(*map(torch.from_numpy, (inputs, outputs, counts)), 0.7)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [0, 7, 200])
def test_texts_and_images_are_one_regression(count: int) -> None:
    """Every text standing for 10 images, or for its part of all of them; written out as least squares."""
    classes, width, bits = 5, 8, 6
    texts, images = normal(classes, width, dtype=torch.float64) + 3, normal(count, width, seed=1, dtype=torch.float64)
    codes, image_codes = normal(classes, bits, seed=2).double().sign(), normal(count, bits, seed=3).double().sign()
    weight, bias = fit_text(texts, codes, images, image_codes)

    centered = (texts - texts.mean(dim=0)).numpy()
    rows = [(max(10, count / classes), x / np.linalg.norm(x), y) for x, y in zip(centered, codes.numpy(), strict=True)]
    if count:
        about = (images - images.mean(dim=0)).numpy()
        rows += [(1.0, x / np.linalg.norm(x), y) for x, y in zip(about, image_codes.numpy(), strict=True)]
    stacked = np.vstack([*(n**0.5 * x for n, x, _ in rows), 2 * np.eye(width)])
    wanted = np.vstack([*(n**0.5 * y for n, _, y in rows), np.zeros((width, bits))])
    expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    size = np.linalg.norm(centered, axis=1).mean()
    np.testing.assert_allclose((texts @ weight.T + bias).numpy(), centered / size @ expected, rtol=1e-8, atol=1e-10)


def test_three_texts_about_a_center_of_all_texts_have_codes_of_their_own() -> None:
    """About their own mean they span a plane, in which (1, 1), (1, -1) and (-1, 1) cannot be told by two bits."""
    texts = normal(3, 8, seed=4) + 3
    codes = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
    none = torch.zeros(0, 8), torch.zeros(0, 3)
    weight, bias = fit_text(texts, codes, *none, center=torch.full((8,), 3.0))
    assert torch.equal((texts @ weight.T + bias).sign(), codes)
    weight, bias = fit_text(texts, codes, *none)
    assert not torch.equal((texts @ weight.T + bias).sign(), codes)


def test_the_scale_is_the_best_of_a_grid() -> None:
    codes, lengths = normal(7, 20, dtype=torch.float64).sign(), (3, 8, 20)

    def misfit(scale: float) -> float:
        eye = torch.eye(7, dtype=torch.float64)
        return sum((eye - scale * codes[:, :b] @ codes[:, :b].T).square().sum().item() for b in lengths)

    grid = np.linspace(0, 0.2, 20_001)
    best = grid[np.argmin([misfit(scale) for scale in grid])]
    assert scale_to_labels(codes, lengths) == pytest.approx(best, abs=1e-5)
    assert misfit(scale_to_labels(codes, lengths)) <= misfit(best)


# All of it


class Joint(nn.Module):
    """A tower whose features are what it is given."""

    num_adapted = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.feature_dim = width

    def tail(self, tokens: Tensor) -> Tensor:
        return tokens


def before(anchors: Tensor, lengths: tuple[int, ...] = (8, 16, 64), width: int = WIDTH) -> HashModel:
    return HashModel(Joint(width), anchors, lengths, class_layer=True).eval()  # type: ignore[arg-type]


def started(
    model: HashModel,
    unlabeled: Tensor,
    labeled: Tensor = NONE,
    targets: Tensor | None = None,
    text_center: Tensor | None = None,
    **settings: object,
) -> Start:
    targets = torch.zeros(len(labeled), len(model.anchors)) if targets is None else targets
    config = Config(**settings)
    asked = {"seed": config.seed, "has_texts": config.has_texts, "text_center": text_center}
    start = closed_form(model, unlabeled.split(200), labeled.split(7), targets, config, **asked)
    start.apply(model)
    return start


@pytest.mark.parametrize("given", ["names", "labels", "both"])
@pytest.mark.parametrize("classes", [2, 6, 30])
def test_codes_of_a_class_are_alike_and_every_bit_varies(classes: int, given: str) -> None:
    world = World(classes, apart=4.0)
    model, images, labels = before(world.names), *world.some(1500)
    labeled, targets = world.labeled([0 if given == "names" else 4] * classes)
    start = started(model, images, labeled, targets, head_init="labels" if given == "labels" else "auto")
    queries, their_labels = world.some(200)
    with torch.no_grad():
        (h, in_code_space), (asked, _) = model(images), model(queries)
    hot = [np.eye(classes, dtype=bool)[each.numpy()] for each in (their_labels, labels)]
    scores = evaluate(pack(asked.numpy()), hot[0], pack(h.numpy()), hot[1], lengths=(8, 16, 64))
    chance = hot[1].mean(axis=0).max()
    for bits in (8, 16, 64):
        assert scores[bits].map_tie_aware > max(0.5, 5 * chance) if classes > 2 else scores[bits].map_tie_aware > 0.75
    signs = torch.where(h >= 0, 1.0, -1.0)
    assert (signs.std(dim=0) > 0.1).all()

    before_tanh = torch.atanh(h.double().clamp(-1 + 1e-7, 1 - 1e-7))
    if given == "names":  # then these images are all it saw
        torch.testing.assert_close(before_tanh.std(dim=0), torch.ones(64, dtype=torch.double), atol=0.02, rtol=0)
    assert start.class_codes.shape == (classes, 64)
    assert len(torch.unique(start.class_codes, dim=0)) == classes
    layer = model.class_layer
    assert layer is not None
    with torch.no_grad():
        every = torch.cat([images, labeled])
        p = layer.probabilities(layer.units(every))
        votes = sum(torch.outer(p_i, code) for p_i, code in zip(p, model(every)[0].sign(), strict=True))
    assert torch.equal(votes.sign(), start.class_codes)
    if given != "labels":
        right = (in_code_space.sign() == start.class_codes)[:, : default_class_bits(64)]
        assert right.float().mean() > 0.9
    assert (start.accuracy is None) == (given == "names")
    assert start.accuracy is None or start.accuracy > 0.5


def test_the_short_code_tells_classes_apart_and_the_whole_one_images() -> None:
    """How often an image that is a little changed finds itself first: 32 bits for the image find it, 0 do not."""
    world = World(6, apart=4.0)
    images, labels = world.some(600)
    changed = images + 0.1 * normal(*images.shape, seed=8)
    recall = []
    for class_bits in (None, 64):
        model = before(world.names)
        started(model, images, class_bits=class_bits)
        with torch.no_grad():
            signs, others = model(images)[0].sign(), model(changed)[0].sign()
        words = torch.unique(signs[:, :8], dim=0, return_inverse=True)[1]
        assert sum(int(labels[words == w].bincount().max()) for w in words.unique()) > 0.95 * len(labels)
        products = others @ signs.T
        first = (products.diagonal()[:, None] >= products).all(dim=1)
        alone = (products == products.amax(dim=1, keepdim=True)).sum(dim=1) == 1
        recall.append((first & alone).float().mean().item())
    assert recall[0] > 0.8
    assert recall[0] > recall[1] + 0.2


def test_the_seed_alone_draws() -> None:
    world = World(5)
    images, names = world.some(300)[0], world.names
    codes, tensors = [], []
    for callers_seed, seed in ((1, 0), (2, 0), (1, 3)):
        torch.manual_seed(callers_seed)
        model = before(names)
        state = torch.get_rng_state()
        codes.append(started(model, images, seed=seed).class_codes)
        tensors.append(trained(model))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(codes[0], codes[1])
    assert all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[1], strict=True))
    assert not torch.equal(codes[0], codes[2])


def trained(model: HashModel) -> list[Tensor]:
    return [tensor for name, tensor in model.state_dict().items() if name.startswith(("class_layer", "head", "anchor"))]


def test_double_precision() -> None:
    world = World(5)
    images, names = world.some(300)[0], world.names
    labeled, targets = world.labeled([3] * 5)
    single, double = before(names), before(names).double()
    starts = [started(model, images, labeled, targets) for model in (single, double)]
    assert starts[1].class_codes.dtype == torch.float64
    assert all(tensor.dtype == torch.float64 for tensor in trained(double))
    assert starts[0].text_sharpness == starts[1].text_sharpness
    assert starts[0].label_sharpness == starts[1].label_sharpness
    assert starts[0].accuracy == pytest.approx(starts[1].accuracy)
    layers = single.class_layer, double.class_layer
    assert layers[0] is not None
    assert layers[1] is not None
    probabilities = [layer.probabilities(layer.units(images.to(layer.mean))) for layer in layers if layer is not None]
    torch.testing.assert_close(probabilities[0].double(), probabilities[1], atol=0.01, rtol=0)


def test_shift_and_scale_of_the_features_change_nothing() -> None:
    world = World(5)
    images, names = world.some(300)[0], world.names
    one, other = before(names), before(names)
    started(one.double(), images.double())
    started(other.double(), images.double() * 0.01 - 7)
    h, moved = one(images.double())[0], other(images.double() * 0.01 - 7)[0]
    assert (h.sign() == moved.sign()).double().mean() > 0.99


def refused(model: HashModel, *given: Tensor, **settings: object) -> str:
    with pytest.raises(NestKALAError) as caught:
        started(model, *given, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_it_cannot_start_from_is_told_in_a_line() -> None:
    images = normal(50, WIDTH)
    anchors = normal(6, WIDTH)
    assert "at least two classes: use --head-init random" in refused(before(anchors[:1]), images)
    assert "images that differ, but these 50 do not" in refused(before(anchors), torch.ones(50, WIDTH))
    assert "images that differ, but these 1 do not" in refused(before(anchors), images[:1])
    assert "anchors that differ, but these 6 do not" in refused(before(torch.ones(6, WIDTH)), images)
    assert "widths are 33 and 32: use --head-init random" in refused(before(normal(6, WIDTH + 1)), images)
    spoilt = images.clone()
    spoilt[7, 3] = torch.nan
    assert "finite features, but those of 1 images are not" in refused(before(anchors), spoilt)
    few, targets = images[:5], torch.eye(6)[:5]
    assert "without texts every class needs a labeled image, but class number 5 has none" in refused(
        before(anchors), images, few, targets, head_init="labels"
    )
    bare = HashModel(Joint(WIDTH), anchors, (8,))  # type: ignore[arg-type]
    flat = HashModel(Joint(WIDTH), anchors, (8,), head=FlatHashHead, class_layer=True)  # type: ignore[arg-type]
    for model in (bare, flat):
        assert "needs the nested head" in refused(model, images)


MANY = """
import resource, torch
from tests.training.test_closed_form import World, before, started
world = World(1000, width=64, apart=6.0)
images, labels = world.some(20_000)
model = before(world.names, (8, 64), width=64)
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = started(model, images, images[:0], torch.zeros(0, 1000))
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used) / 1024
signs = model(images[:2000])[0].sign()
right = ((signs @ start.class_codes.T).argmax(dim=1) == labels[:2000]).float().mean().item()
print(len(torch.unique(start.class_codes[:, :32], dim=0)), grown, right)
"""


def test_a_thousand_classes_fit_into_memory() -> None:
    """20,000 images and 1,000 classes: a few tables of 80 MB."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1024  # in kB here, not bytes
    root = str(__file__).rpartition("/tests/")[0]
    done = subprocess.run([sys.executable, "-c", MANY], cwd=root, capture_output=True, text=True, check=True)
    words, grown, right = map(float, done.stdout.split())
    assert words > 990
    assert grown < 1000
    assert right > 0.5


def test_zero_shot_labels_are_the_nearest_centered_text_by_cosine() -> None:
    features, texts = normal(50, 7) + 4, normal(4, 7, seed=1) - 2
    centered = [[x - m for x, m in zip(row, features.mean(dim=0).tolist(), strict=True)] for row in features.tolist()]
    directions = texts - texts.mean(dim=0)
    for row, found in zip(centered, zero_shot_labels(features, texts).tolist(), strict=True):
        cosines = [F.cosine_similarity(torch.tensor(row), direction, dim=0).item() for direction in directions]
        assert found == cosines.index(max(cosines))
