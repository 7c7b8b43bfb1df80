"""Classes of images from names, labels and images without labels, all at once."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..class_layer import MAX_WIDTH
from .bits import eigen

SHARPNESS = 20.0
"""Of the class probabilities of images without labels, by cosine."""

_TEXT_SHARPNESS = (0.0, 5.0, 10.0, 15.0, 30.0, 60.0)
_LABEL_SHARPNESS = (5.0, 10.0, 15.0, 30.0, 60.0)
_USUAL = 15.0  # where nothing tells how far to trust texts or labels
_TEXT_COUNT = 0.5  # labelled images that a class's text counts as in its prototype
_PRIOR = 0.25  # how much of the first evidence stays: without it posteriors drift to whatever clusters there are
_FIRST_ROUNDS, _ROUNDS, _INNER_ROUNDS = 4, 4, 2
_CLUSTERINGS, _CLUSTER_ROUNDS = 4, 15
_MOST_CLUSTERED = 32  # classes: of more, clusters that know no names were never likelier
_CHUNK = 8192


class Classes(NamedTuple):
    """What tells classes apart; the first four are those of a `ClassLayer`.

    Attributes:
        mean: of the features, (d,).
        basis: principal directions of the features, (d, k).
        whitening: (k, k), which evens out how images of one class differ.
        prototypes: of the classes, (C, k), of unit norm.
        variances: along the principal directions, (k,), and their mean over all d.
        text_sharpness, label_sharpness: how far texts and labels were trusted.
        accuracy: share of the labelled images whose class the others' labels and the texts give; None where fewer than
            half of the classes have two labelled images.
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
    unlabelled: Tensor, labelled: Tensor, targets: Tensor, texts: Tensor | None, generator: torch.Generator
) -> Classes:
    """Learn the classes from whatever there is.

    Texts and labels give each image without a label first probabilities of the classes. How much each of the two counts
    is chosen by the likelihood of the labelled images, each left out in turn. Then prototypes and probabilities take
    turns (expectation maximisation), in a space that is whitened by how images differ within a class, as in
    discriminant analysis; a part of the first evidence stays. Names and single labels can mislead: where no label can
    be left out and classes are few, the same is done from clusters that know neither, and the likeliest is taken.

    Source: the combination is ours. Whitening by a shared covariance as in GDA (Wang et al., ICLR 2024), images without
    labels as in TransCLIP (Zanella et al., NeurIPS 2024).

    Args:
        unlabelled: features of images (M, d).
        labelled: features of images (n, d), n 0 or more; with M at least two images.
        targets: multi-hot labels of the latter (n, C).
        texts: directions of the classes among the features (C, d); None for none, where every class needs a label.
        generator: draws the clusters' starts.
    """
    images = torch.cat([unlabelled, labelled])
    mean = images.mean(dim=0)
    variances, directions = _spectrum(images - mean)
    width = min(MAX_WIDTH, images.shape[1])
    basis, kept = directions[:, :width], variances[:width]

    def units(features: Tensor) -> Tensor:
        return F.normalize((features - mean) @ basis, dim=1)

    others, known = units(unlabelled), units(labelled)
    named = texts if texts is None else F.normalize((texts - texts.mean(dim=0)) @ basis, dim=1)
    shares = targets / targets.sum(dim=1, keepdim=True).clamp(min=1)  # of an image's classes in it
    half = (kept + 2 * variances.mean()).pow(-0.25)  # half a whitening, regularised

    def halved(rows: Tensor) -> Tensor:
        return F.normalize(rows * half, dim=1)

    said = torch.zeros_like(targets.T @ known) if named is None else named
    label_sums = targets.T @ halved(known) + _TEXT_COUNT * halved(said)
    by_text = known.new_zeros(targets.shape) if named is None else known @ named.T
    by_label = _without_own(halved(known), targets, label_sums)
    text_sharpness, label_sharpness = _trust(by_text, by_label, targets, shares, named is not None)
    accuracy = None
    if _can_leave_out(targets):
        best = (text_sharpness * by_text + label_sharpness * by_label).argmax(dim=1)
        accuracy = targets.gather(1, best[:, None]).float().mean().item()

    def evidence(rows: Tensor) -> Tensor:
        found = rows.new_zeros(len(rows), targets.shape[1])
        if named is not None:
            found += text_sharpness * rows @ named.T
        if len(known):
            found += label_sharpness * halved(rows) @ F.normalize(label_sums, dim=1).T
        return found

    given = _Images(others, known, targets, shares)
    first = _posteriors(others, evidence)
    solutions = [_alternate(given, halved, first, said, evidence)]
    if not _can_leave_out(targets) and targets.shape[1] <= _MOST_CLUSTERED:
        for posteriors in _clusterings(halved(others), first, generator):
            solutions.append(_alternate(given, halved, posteriors, torch.zeros_like(said), None))
    likeliest = max(solutions, key=lambda solution: solution.likelihood)
    return Classes(
        mean,
        basis,
        likeliest.whitening,
        likeliest.prototypes,
        kept,
        variances.mean(),
        text_sharpness,
        label_sharpness,
        accuracy,
    )


class _Images(NamedTuple):
    others: Tensor  # units (M, k), without labels
    known: Tensor  # units (n, k)
    targets: Tensor  # multi-hot (n, C)
    shares: Tensor  # of an image's classes in it, (n, C)


class _Solution(NamedTuple):
    prototypes: Tensor
    whitening: Tensor
    likelihood: float


def _alternate(
    images: _Images,
    halved: Callable[[Tensor], Tensor],
    posteriors: Tensor,
    texts: Tensor,
    evidence: Callable[[Tensor], Tensor] | None,
) -> _Solution:
    """Prototypes and posteriors by turns, from first posteriors (M, C); a part of the evidence, if given, stays.

    Texts (C, k), 0 where there are none, join the first rounds, and are all that is known of a class without images.
    """
    others, known, targets, shares = images

    def updated(space: Callable[[Tensor], Tensor], prototypes: Tensor) -> Tensor:
        def scores(rows: Tensor) -> Tensor:
            found = _scores(prototypes, space(rows))
            return found if evidence is None else found + _PRIOR * evidence(rows)

        return _posteriors(others, scores)

    for _ in range(_FIRST_ROUNDS):
        sums = halved(texts) + targets.T @ halved(known) + _sums(posteriors, others, halved)
        posteriors = updated(halved, F.normalize(sums, dim=1))

    scatter = others.T @ others + known.T @ known
    for _ in range(_ROUNDS):
        counts = posteriors.sum(dim=0, dtype=scatter.dtype) + shares.sum(dim=0)
        sums = _sums(posteriors, others, lambda rows: rows) + shares.T @ known
        between = (sums / counts.clamp(min=1e-6)[:, None]).T @ sums
        whitening = _inverse_root((scatter - between) / (len(others) + len(known)))

        def whitened(rows: Tensor, whitening: Tensor = whitening) -> Tensor:
            return F.normalize(rows @ whitening, dim=1)

        for _ in range(_INNER_ROUNDS):
            sums = targets.T @ whitened(known) + _sums(posteriors, others, whitened)
            sums[counts < 1e-6] = whitened(texts[counts < 1e-6])
            prototypes = F.normalize(sums, dim=1)
            posteriors = updated(whitened, prototypes)
    return _Solution(prototypes, whitening, _likelihood(others, whitened, prototypes))


def _likelihood(images: Tensor, space: Callable[[Tensor], Tensor], prototypes: Tensor) -> float:
    """Log-likelihood of images (M, k) as a mixture of the classes, up to a constant."""
    return sum(_scores(prototypes, space(rows)).logsumexp(dim=1).sum().item() for rows in images.split(_CHUNK))


def _clusterings(units: Tensor, first: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Posteriors (M, C) of clusters that know neither names nor labels, each called after the class it fits best.

    Clusters are found by k-means on the sphere from k-means++ starts (Arthur and Vassilvitskii, 2007).
    """
    num_classes = first.shape[1]
    for _ in range(_CLUSTERINGS):
        chosen = units[torch.randint(len(units), (1,), generator=generator).to(units.device)]
        while len(chosen) < num_classes:
            far = (1 - (units @ chosen.T).amax(dim=1)).clamp(min=0).square().cpu() + 1e-12
            chosen = torch.cat([chosen, units[torch.multinomial(far, 1, generator=generator).to(units.device)]])
        for _ in range(_CLUSTER_ROUNDS):
            posteriors = _posteriors(units, partial(_scores, chosen))
            chosen = F.normalize(_sums(posteriors, units, lambda rows: rows), dim=1)
        overlap = _sums(posteriors, first.to(units), lambda rows: rows)  # (C, C), clusters by classes
        clusters, classes = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
        yield posteriors[:, torch.from_numpy(clusters[classes.argsort()])]


def _scores(prototypes: Tensor, units: Tensor) -> Tensor:
    return SHARPNESS * units @ prototypes.T


def _spectrum(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (d,), descending, and principal directions (d, d) of rows (n, d) whose mean is 0."""
    values, vectors = eigen(centred.T @ centred / len(centred))
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _inverse_root(covariance: Tensor) -> Tensor:
    """(S + mean variance I)^(-1/2)."""
    values, vectors = eigen(covariance)
    values = values.clamp(min=0)
    return (vectors * (values + values.mean()).clamp(min=1e-12).rsqrt()) @ vectors.T


def _posteriors(units: Tensor, scores: Callable[[Tensor], Tensor]) -> Tensor:
    """Class probabilities (M, C), in half precision: of 100,000 images and 1,000 classes they take 200 MB."""
    parts = [scores(rows).softmax(dim=1).half() for rows in units.split(_CHUNK)]
    return torch.cat(parts)


def _sums(posteriors: Tensor, units: Tensor, space: Callable[[Tensor], Tensor]) -> Tensor:
    """Sums over images of class probability times image, (C, k)."""
    chunks = zip(posteriors.split(_CHUNK), units.split(_CHUNK), strict=True)
    return torch.stack([p.to(rows).T @ space(rows) for p, rows in chunks]).sum(dim=0)


def _can_leave_out(targets: Tensor) -> bool:
    return len(targets) > 0 and 2 * int((targets.sum(dim=0) >= 2).sum()) >= targets.shape[1]


def _trust(by_text: Tensor, by_label: Tensor, targets: Tensor, shares: Tensor, has_texts: bool) -> tuple[float, float]:
    """The sharpness of the evidence of texts and of labels under which the labelled images are likeliest.

    With one label a class there is nothing to leave out: only how far texts are right can be seen then.
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
    """Cosines (n, C) of labelled images to the classes' sums, an image left out of those of its own classes."""
    cosines = images @ F.normalize(sums, dim=1).T
    rows, classes = targets.nonzero(as_tuple=True)
    own = sums[classes] - images[rows]
    cosines[rows, classes] = (images[rows] * F.normalize(own, dim=1)).sum(dim=1)
    return cosines
