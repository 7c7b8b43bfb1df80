"""Kinds of things in an archive that nobody named.

A few names and labels of an archive of a hundred kinds say nothing of the other kinds, yet each image of these would be
given one of the names. Clusters without a name take them instead.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .mixture import clusters, held_out_likelihood, log_densities

SAMPLE = 8000
"""Images that are looked at: half of them make clusters, the other half say how good these are."""

_NUMBERS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200)
_IMAGES_PER_CLUSTER = 3
_CLOSED_WITHIN = 1.2  # nats an image; named classes that explain the images so nearly as well as clusters are all
_AS_GOOD_WITHIN = 0.3  # nats an image
_FEW_IMAGES = 200  # of which half, a sample to make clusters of, say too little
_IMAGES_OF_A_KIND = 4  # among so few images
_LEAST_FOUND = 0.6  # of the labeled images; clusters in which fewer find their class are finer than the classes


class Kinds(NamedTuple):
    """Clusters of images.

    Attributes:
        prototypes: (J, k), of unit norm.
        owners: the class each belongs to, (J,); -1 for none.
    """

    prototypes: Tensor
    owners: Tensor


def find_kinds(
    sample: Tensor,
    evidence: Tensor,
    known: Tensor,
    targets: Tensor,
    classes: Tensor,
    number: int | None,
    generator: torch.Generator,
) -> Kinds | None:
    """Clusters for the classes and for whatever has no name; None where the named classes are all there is.

    The classes are all there is where images that were held out are nearly as likely under them as under any number of
    clusters. Otherwise there are as many clusters as make them likely, unless these are finer than the classes: then
    labeled images would not fall into clusters of their own class. A class owns the clusters that most of their
    labeled images give it, or one that its name and labels fit best.

    Args:
        sample: images (S, k), of unit norm, in random order.
        evidence: of names and labels for each class, (S, C).
        known: labeled images (n, k), of unit norm.
        targets: multi-hot labels of the latter (n, C).
        classes: prototypes (C, k) of the named classes where each image has to be of one of them.
        number: of kinds without a name; None for what the images say.
        generator: draws the clusters' starts.
    """
    num_classes = len(classes)
    if number is not None:
        prototypes = clusters(sample, min(num_classes + number, len(sample)), generator)
        return Kinds(prototypes, _owners(sample, evidence, known, targets, prototypes, several=False))
    fitted, held_out = sample[::2], sample[1::2]
    tried, likely = _tried(fitted, held_out, generator)
    best = max(likely.values())
    if held_out_likelihood(classes, fitted, held_out) >= best - _CLOSED_WITHIN:
        return None
    enough = _enough(likely)
    for j in sorted((j for j in tried if num_classes < j <= enough), reverse=True):
        if _share_found(known, targets, tried[j]) >= _LEAST_FOUND:
            return Kinds(tried[j], _owners(sample, evidence, known, targets, tried[j], several=True))
    return None


def number_of_kinds(sample: Tensor, generator: torch.Generator) -> int:
    """How many clusters, 2 or more, make images that were held out likely.

    Of fewer than 200 images, at least one for every four.

    Args:
        sample: images (S, k), of unit norm, in random order.
        generator: draws the clusters' starts.
    """
    _, likely = _tried(sample[::2], sample[1::2], generator)
    least = len(sample) // _IMAGES_OF_A_KIND if len(sample) < _FEW_IMAGES else 0
    return max(2, least, _enough(likely))


def _tried(fitted: Tensor, held_out: Tensor, generator: torch.Generator) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Clusters by their number, and how likely images that were held out are under them."""
    most = max(1, len(fitted) // _IMAGES_PER_CLUSTER)
    tried = {j: clusters(fitted, j, generator) for j in _NUMBERS if j <= most}
    return tried, {j: held_out_likelihood(prototypes, fitted, held_out) for j, prototypes in tried.items()}


def _enough(likely: dict[int, float]) -> int:
    """The fewest clusters that are nearly as likely as any number of them."""
    best = max(likely.values())
    return min(j for j in likely if likely[j] >= best - _AS_GOOD_WITHIN)


def _owners(
    sample: Tensor, evidence: Tensor, known: Tensor, targets: Tensor, prototypes: Tensor, several: bool
) -> Tensor:
    """The class (J,) of each cluster, -1 for none; a class has one cluster, or `several`."""
    weights = log_densities(prototypes, sample).softmax(dim=1)  # (S, J)
    mean_evidence = weights.T @ evidence / weights.sum(dim=0)[:, None].clamp(min=1)  # (J, C)
    votes = _votes(known, targets, prototypes)  # (J, C)
    fit = mean_evidence + votes * (1 + mean_evidence.max() - mean_evidence.min())  # labels come first
    claimed, by = linear_sum_assignment(fit.cpu().numpy(), maximize=True)
    owners = torch.full((len(prototypes),), -1)
    owners[claimed] = torch.from_numpy(by)
    if several:
        owners = torch.where((owners < 0) & (votes.amax(dim=1) > 0).cpu(), votes.argmax(dim=1).cpu(), owners)
    return owners.to(sample.device)


def _votes(known: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
    """How many labeled images of each class fell into each cluster, (J, C)."""
    return F.one_hot(_nearest(known, prototypes), len(prototypes)).to(targets).T @ targets


def _nearest(known: Tensor, prototypes: Tensor) -> Tensor:
    return (known @ prototypes.T).argmax(dim=1)


def _share_found(known: Tensor, targets: Tensor, prototypes: Tensor) -> float:
    """The share of labeled images that share a cluster with another one of their class.

    Those of classes with one label are not counted; 1 where there are no others.
    """
    able = targets * (targets.sum(dim=0) >= 2)
    asked = able.any(dim=1)
    if not asked.any():
        return 1.0
    others = _votes(known, targets, prototypes)[_nearest(known, prototypes)] - targets  # (n, C)
    return ((others * able) > 0).any(dim=1)[asked].double().mean().item()
