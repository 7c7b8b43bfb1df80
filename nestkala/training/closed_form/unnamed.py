"""Unnamed kinds of things in an archive.

A few names and labels for an archive of a hundred kinds say nothing about the other kinds, yet each image of these
would be assigned to one of the names. Unnamed clusters take them instead.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .mixture import clusters, held_out_likelihood, log_densities

SAMPLE = 8000
"""Size of the sample: one half is clustered, the other half measures how good the clusters are."""

_NUMBERS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200)
_IMAGES_PER_CLUSTER = 3
_CLOSED_WITHIN = 1.2  # nats per image; named classes this close to the clusters' likelihood cover everything
_AS_GOOD_WITHIN = 0.3  # nats per image
_FEW_IMAGES = 200  # half of them are too small a sample for clustering
_IMAGES_OF_A_KIND = 4  # with that few images
_LEAST_FOUND = 0.6  # share of labeled images; clusters in which fewer find their class are finer than the classes


class Kinds(NamedTuple):
    """Clusters of images.

    Attributes:
        prototypes: (J, k), of unit norm.
        owners: the class that each cluster belongs to, (J,); -1 for none.
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
    """Clusters for the classes and for everything unnamed; None if the named classes cover all images.

    They do if held-out images are nearly as likely under the classes as under any number of clusters. Otherwise the
    number of clusters is the one that makes held-out images likely, unless these are finer than the classes: labeled
    images would then not fall into clusters of their own class. A class owns the clusters that most of their labeled
    images assign to it, or one that its name and labels fit best.

    Args:
        sample: images (S, k), of unit norm, in random order.
        evidence: from names and labels for each class, (S, C).
        known: labeled images (n, k), of unit norm.
        targets: multi-hot labels (n, C) of the labeled images.
        classes: prototypes (C, k) of the named classes if every image must belong to one of them.
        number: number of unnamed kinds; None to estimate it from the images.
        generator: source of randomness for initial clusters.
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
    """The number of clusters, 2 or more, that makes held-out images likely.

    With fewer than 200 images, at least one cluster for every four.

    Args:
        sample: images (S, k), of unit norm, in random order.
        generator: source of randomness for initial clusters.
    """
    _, likely = _tried(sample[::2], sample[1::2], generator)
    least = len(sample) // _IMAGES_OF_A_KIND if len(sample) < _FEW_IMAGES else 0
    return max(2, least, _enough(likely))


def _tried(fitted: Tensor, held_out: Tensor, generator: torch.Generator) -> tuple[dict[int, Tensor], dict[int, float]]:
    """Clusters by their number, and the likelihood of held-out images under them."""
    most = max(1, len(fitted) // _IMAGES_PER_CLUSTER)
    tried = {j: clusters(fitted, j, generator) for j in _NUMBERS if j <= most}
    return tried, {j: held_out_likelihood(prototypes, fitted, held_out) for j, prototypes in tried.items()}


def _enough(likely: dict[int, float]) -> int:
    """The smallest number of clusters whose likelihood is close to the best."""
    best = max(likely.values())
    return min(j for j in likely if likely[j] >= best - _AS_GOOD_WITHIN)


def _owners(
    sample: Tensor, evidence: Tensor, known: Tensor, targets: Tensor, prototypes: Tensor, several: bool
) -> Tensor:
    """The class (J,) of each cluster, -1 for none; a class has one cluster, or several if `several`."""
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
    """How many labeled images of each class fall into each cluster, (J, C)."""
    return F.one_hot(_nearest(known, prototypes), len(prototypes)).to(targets).T @ targets


def _nearest(known: Tensor, prototypes: Tensor) -> Tensor:
    return (known @ prototypes.T).argmax(dim=1)


def _share_found(known: Tensor, targets: Tensor, prototypes: Tensor) -> float:
    """The share of labeled images that are in a cluster with another image of their class.

    Images of classes with one label are not counted; 1 if there are no others.
    """
    able = targets * (targets.sum(dim=0) >= 2)
    asked = able.any(dim=1)
    if not asked.any():
        return 1.0
    others = _votes(known, targets, prototypes)[_nearest(known, prototypes)] - targets  # (n, C)
    return ((others * able) > 0).any(dim=1)[asked].double().mean().item()
