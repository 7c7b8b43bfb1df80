"""Learns classes of images from names, labels and unlabeled images at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...modeling.class_layer import MAX_WIDTH
from .bits import eigen
from .mixture import CHUNK, clusters, likelihood, log_densities, posteriors_of, weighted_sums
from .unnamed import SAMPLE, find_kinds, number_of_kinds

_TEXT_SHARPNESS = (0.0, 5.0, 10.0, 15.0, 30.0, 60.0)
_LABEL_SHARPNESS = (5.0, 10.0, 15.0, 30.0, 60.0)
_USUAL = 15.0  # used if nothing tells how far to trust texts or labels
_TEXT_COUNT = 0.5  # a class's text counts as this many labeled images in its prototype
_PRIOR = 0.25  # share of the first evidence that stays; without it posteriors drift to arbitrary clusters
_FIRST_ROUNDS, _ROUNDS, _INNER_ROUNDS = 4, 4, 2
_CLUSTERINGS = 4
_CLEARLY = 0.3  # margin in the share of labeled images by which clusters must beat names and labels
_MOST_CLUSTERED = 32  # classes; with more, clusters without names were never likelier


class Classes(NamedTuple):
    """A classifier; the first four attributes are those of a `ClassLayer`.

    Attributes:
        mean: mean of the features, (d,).
        basis: principal directions of the features, (d, k).
        whitening: (k, k), which evens out the differences of images within a class.
        prototypes: of the classes and, after them, of unnamed kinds, (C + U, k), of unit norm.
        variances: along the principal directions, (k,); `mean_variance` is their mean over all d.
        text_sharpness, label_sharpness: how far texts and labels were trusted.
        accuracy: leave-one-out share of the labeled images that texts and the other labels classify correctly; None if
            fewer than half of the classes have two labeled images.
            half of the classes have two labeled images.
    """

    mean: Tensor
    basis: Tensor
    whitening: Tensor
    prototypes: Tensor
    variances: Tensor
    mean_variance: Tensor
    text_sharpness: float
    label_sharpness: float
    accuracy: float | None


def fit_classes(
    unlabeled: Tensor,
    labeled: Tensor,
    targets: Tensor,
    texts: Tensor | None,
    generator: torch.Generator,
    text_center: Tensor | None = None,
    unnamed: int | None = 0,
) -> Classes:
    """Learn the classes from names, labels and unlabeled images, whichever are given.

    Texts and labels give each unlabeled image initial class probabilities. How much each of the two counts is chosen
    by the leave-one-out likelihood of the labeled images. Then prototypes and probabilities alternate (expectation
    maximization) in a space that is whitened by how images differ within a class, as in discriminant analysis; part of
    the initial evidence stays. Names and few labels can mislead. With few classes, the same is therefore done from
    clusters that know neither. The likelier solution is taken if no label can be left out, or if clusters are right
    about clearly more of the labeled images than names and labels are about those left out.
    If the images show more kinds of things than were named, the others are learned along with them (`find_kinds`).

    Source: the combination is ours. Whitening by a shared covariance as in GDA (Wang et al., ICLR 2024), unlabeled
    images as in TransCLIP (Zanella et al., NeurIPS 2024).

    Args:
        unlabeled: image features (M, d).
        labeled: image features (n, d), n may be 0; at least two images together with M.
        targets: multi-hot labels (n, C) of the labeled images.
        texts: directions of the classes in feature space (C, d); None if there are none, and then every class needs a
            label.
        generator: source of randomness for initial clusters.
        text_center: direction (d,) of texts about anything, a better reference for a few classes than their own mean;
            None for their own mean.
        unnamed: number of unnamed kinds of things, 0 or more; None to estimate it from the images.
    """
    space = _Space.of(torch.cat([unlabeled, labeled]))
    halved = space.halved
    shares = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)  # of each class in an image
    given = _Images(space.units(unlabeled), space.units(labeled), targets, shares)

    def evidence(center: Tensor | None) -> _Evidence:
        if texts is None:
            return _gather(given, halved, None)
        away = texts - (texts.mean(dim=0) if center is None else center)
        return _gather(given, halved, F.normalize(away @ space.basis, dim=1))

    found = evidence(None)
    first = posteriors_of(given.others, found)
    best = _alternate(given, halved, first, found.said, found.staying(given.others))
    certain = found.accuracy is not None and found.accuracy > 1 - _CLEARLY
    if not certain and targets.shape[1] <= min(_MOST_CLUSTERED, len(unlabeled)):
        ways = _clusterings(halved(given.others), first, generator)
        by_cluster = [_alternate(given, halved, way, torch.zeros_like(found.said), None) for way in ways]
        clustered = max(by_cluster, key=lambda solution: solution.likelihood)
        right = 1.0 if found.accuracy is None else _share_right(given, clustered) - found.accuracy
        if clustered.likelihood > best.likelihood and right >= _CLEARLY:
            best = clustered

    if unnamed != 0 and len(given.others) > 1:
        wider = evidence(text_center)
        best = _with_unnamed(given, halved, wider, best, unnamed, generator) or best
    return Classes(
        space.mean,
        space.basis,
        best.whitening,
        best.prototypes,
        space.variances,
        space.mean_variance,
        found.text_sharpness,
        found.label_sharpness,
        found.accuracy,
    )


def fit_kinds(images: Tensor, generator: torch.Generator) -> Classes:
    """Learn kinds of things from images alone: clusters, each of which is an unnamed class.

    Their number makes held-out images likely (`number_of_kinds`). They are refined by the same alternation as in
    `fit_classes`.

    Args:
        images: features (M, d), at least two of which differ.
        generator: source of randomness for the sample and initial clusters.
    """
    space = _Space.of(images)
    units = space.units(images)
    seen = space.halved(units)
    sample = seen[torch.randperm(len(seen), generator=generator)[:SAMPLE].to(seen.device)]
    number = number_of_kinds(sample, generator)
    found = clusters(sample, number, generator)
    first = posteriors_of(seen, lambda rows: log_densities(found, rows))
    nothing = units.new_zeros(0, number)
    given = _Images(units, units[:0], nothing, nothing)
    solution = _alternate(given, space.halved, first, units.new_zeros(number, units.shape[1]), None)
    return Classes(
        space.mean,
        space.basis,
        solution.whitening,
        solution.prototypes,
        space.variances,
        space.mean_variance,
        0.0,
        0.0,
        accuracy=None,
    )


class _Space(NamedTuple):
    """The principal directions of the images, in which classes are learned."""

    mean: Tensor  # of the features, (d,)
    basis: Tensor  # (d, k)
    variances: Tensor  # along the basis, (k,)
    mean_variance: Tensor  # over all d

    @classmethod
    def of(cls, images: Tensor) -> Self:
        mean = images.mean(dim=0)
        variances, directions = _spectrum(images, mean)
        width = min(MAX_WIDTH, images.shape[1])
        return cls(mean, directions[:, :width], variances[:width], variances.mean())

    def units(self, features: Tensor) -> Tensor:
        """Features (n, d) -> (n, k), of unit norm."""
        return torch.cat([F.normalize((rows - self.mean) @ self.basis, dim=1) for rows in features.split(CHUNK)])

    def halved(self, units: Tensor) -> Tensor:
        """Units (n, k) after half whitening, regularized, of unit norm again."""
        return F.normalize(units * (self.variances + 2 * self.mean_variance).pow(-0.25), dim=1)


class _Images(NamedTuple):
    others: Tensor  # units (M, k), unlabeled
    known: Tensor  # units (n, k)
    targets: Tensor  # multi-hot (n, C)
    shares: Tensor  # of each class in an image, (n, C)


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Evidence for each class from units (m, k): logits (m, C)."""

    said: Tensor  # directions of the texts (C, k), 0 if there are none
    shown: Tensor  # directions of texts and labeled images together, in the half-whitened space
    halved: Callable[[Tensor], Tensor]
    text_sharpness: float
    label_sharpness: float  # 0 if there are no labels
    accuracy: float | None

    def __call__(self, units: Tensor) -> Tensor:
        found = self.text_sharpness * units @ self.said.T
        if self.label_sharpness:
            found += self.label_sharpness * self.halved(units) @ self.shown.T
        return found

    def staying(self, units: Tensor) -> Tensor:
        """The part (m, C) that stays, computed once because it costs two products over all images per round."""
        return torch.cat([_PRIOR * self(rows) for rows in units.split(CHUNK)])


class _Solution(NamedTuple):
    prototypes: Tensor
    whitening: Tensor
    likelihood: float


def _gather(images: _Images, halved: Callable[[Tensor], Tensor], texts: Tensor | None) -> _Evidence:
    """Evidence from texts (C, k), if any, and labeled images, trusted as far as the labels confirm it."""
    _, known, targets, shares = images
    said = torch.zeros_like(targets.T @ known) if texts is None else texts
    label_sums = targets.T @ halved(known) + _TEXT_COUNT * halved(said)
    by_text = known @ said.T
    by_label = _without_own(halved(known), targets, label_sums)
    text_sharpness, label_sharpness = _trust(by_text, by_label, targets, shares, texts is not None)
    accuracy = None
    if _can_leave_out(targets):
        best = (text_sharpness * by_text + label_sharpness * by_label).argmax(dim=1)
        accuracy = targets.gather(1, best[:, None]).float().mean().item()
    shown = F.normalize(label_sums, dim=1)
    return _Evidence(said, shown, halved, text_sharpness, label_sharpness if len(known) else 0.0, accuracy)


def _with_unnamed(
    images: _Images,
    halved: Callable[[Tensor], Tensor],
    evidence: _Evidence,
    named: _Solution,
    number: int | None,
    generator: torch.Generator,
) -> _Solution | None:
    """Classes and unnamed kinds; None if the classes cover all images. Arguments as for `find_kinds`."""
    others, known, targets, shares = images
    sample = others[torch.randperm(len(others), generator=generator)[:SAMPLE].to(others.device)]

    def of_named(rows: Tensor) -> Tensor:
        return log_densities(named.prototypes, F.normalize(rows @ named.whitening, dim=1))

    weights = posteriors_of(sample, of_named)
    classes = F.normalize(weighted_sums(weights, sample, halved), dim=1)
    kinds = find_kinds(halved(sample), evidence(sample), halved(known), targets, classes, number, generator)
    if kinds is None:
        return None
    free = kinds.owners < 0
    owned = F.one_hot(kinds.owners[~free], targets.shape[1]).to(torch.half)  # (owned clusters, C)

    def padded(rows: Tensor) -> Tensor:
        return F.pad(rows, (0, int(free.sum())))

    by_cluster = posteriors_of(others, lambda rows: log_densities(kinds.prototypes, halved(rows)))
    first = torch.cat([by_cluster[:, ~free] @ owned, by_cluster[:, free]], dim=1)  # (M, C + U)
    given = _Images(others, known, padded(targets), padded(shares))
    texts = F.pad(evidence.said, (0, 0, 0, int(free.sum())))
    return _alternate(given, halved, first, texts, padded(evidence.staying(others)))


def _alternate(
    images: _Images,
    halved: Callable[[Tensor], Tensor],
    posteriors: Tensor,
    texts: Tensor,
    staying: Tensor | None,
) -> _Solution:
    """Alternate prototypes and posteriors, from initial posteriors (M, C); evidence (M, C), if given, stays.

    Texts (C, k), 0 if there are none, count in the first rounds; a class without images has nothing else.
    """
    others, known, targets, shares = images

    def updated(space: Callable[[Tensor], Tensor], prototypes: Tensor) -> Tensor:
        return posteriors_of(others, lambda rows: log_densities(prototypes, space(rows)), staying)

    for _ in range(_FIRST_ROUNDS):
        sums = halved(texts) + targets.T @ halved(known) + weighted_sums(posteriors, others, halved)
        posteriors = updated(halved, F.normalize(sums, dim=1))

    scatter = others.T @ others + known.T @ known
    for _ in range(_ROUNDS):
        counts = posteriors.sum(dim=0, dtype=scatter.dtype) + shares.sum(dim=0)
        sums = weighted_sums(posteriors, others) + shares.T @ known
        between = (sums / counts.clamp(min=1e-6)[:, None]).T @ sums
        whitening = _inverse_root((scatter - between) / (len(others) + len(known)))

        def whitened(rows: Tensor, whitening: Tensor = whitening) -> Tensor:
            return F.normalize(rows @ whitening, dim=1)

        for _ in range(_INNER_ROUNDS):
            sums = targets.T @ whitened(known) + weighted_sums(posteriors, others, whitened)
            sums[counts < 1e-6] = whitened(texts[counts < 1e-6])
            prototypes = F.normalize(sums, dim=1)
            posteriors = updated(whitened, prototypes)
    return _Solution(prototypes, whitening, likelihood(prototypes, others, whitened))


def _share_right(images: _Images, solution: _Solution) -> float:
    """The share of labeled images whose nearest prototype is that of one of their classes."""
    nearest = (F.normalize(images.known @ solution.whitening, dim=1) @ solution.prototypes.T).argmax(dim=1)
    return images.targets.gather(1, nearest[:, None]).float().mean().item()


def _clusterings(units: Tensor, first: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Posteriors (M, C) of clusters found without names or labels, each assigned to the class it fits best."""
    num_classes = first.shape[1]
    for _ in range(_CLUSTERINGS):
        found = clusters(units, num_classes, generator)
        posteriors = posteriors_of(units, lambda rows: log_densities(found, rows))  # noqa: B023 -- called at once
        overlap = weighted_sums(posteriors, first.to(units))  # (C, C), clusters by classes
        by, classes = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
        yield posteriors[:, torch.from_numpy(by[classes.argsort()])]


def _spectrum(images: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (d,), descending, and principal directions (d, d) of rows (n, d) with this mean."""
    centered = (rows - mean for rows in images.split(CHUNK))
    values, vectors = eigen(torch.stack([rows.T @ rows for rows in centered]).sum(dim=0) / len(images))
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _inverse_root(covariance: Tensor) -> Tensor:
    """(S + mean variance I)^(-1/2)."""
    values, vectors = eigen(covariance)
    values = values.clamp(min=0)
    return (vectors * (values + values.mean()).clamp(min=1e-12).rsqrt()) @ vectors.T


def _can_leave_out(targets: Tensor) -> bool:
    return len(targets) > 0 and 2 * int((targets.sum(dim=0) >= 2).sum()) >= targets.shape[1]


def _trust(by_text: Tensor, by_label: Tensor, targets: Tensor, shares: Tensor, has_texts: bool) -> tuple[float, float]:
    """The sharpness of text and label evidence that makes the labeled images likeliest.

    With one label per class nothing can be left out, so only the trust in texts can be estimated.
    """
    if not len(targets):
        return _USUAL, _USUAL
    text_grid: Sequence[float] = _TEXT_SHARPNESS if has_texts else (0.0,)
    label_grid: Sequence[float] = _LABEL_SHARPNESS
    if not _can_leave_out(targets):
        by_label, label_grid = torch.zeros_like(by_label), (_USUAL,)

    def likelihood(pair: tuple[float, float]) -> float:
        scores = pair[0] * by_text + pair[1] * by_label
        return (shares * scores.log_softmax(dim=1)).sum().item()

    return max(((text, label) for text in text_grid for label in label_grid), key=likelihood)


def _without_own(images: Tensor, targets: Tensor, sums: Tensor) -> Tensor:
    """Cosines (n, C) of labeled images to the classes' sums, leaving each image out of its own classes' sums."""
    cosines = images @ F.normalize(sums, dim=1).T
    rows, classes = targets.nonzero(as_tuple=True)
    own = sums[classes] - images[rows]
    cosines[rows, classes] = (images[rows] * F.normalize(own, dim=1)).sum(dim=1)
    return cosines
