"""The text side of `photo`: maps sentences to directions in the feature space of an ImageNet-1k classifier.

A classifier's row is the direction of its class. Kernel ridge regression maps the sentence embeddings of the 1,000
classes to their rows, and so any sentence to a direction. Groups above the classes in WordNet (dog, bird, vehicle, ...)
are learned along with them, as the mean of their rows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .shipped import load_shipped
from .tiny_text import embed_text

PHOTO_NAMES = "photo_names.safetensors"
PHOTO_NAMES_SHA256 = "bfbe9025f5d41d7c8ba662b5cc6b7b6682b49a1b32c3f9ff4b9cce3ca200a075"

_SHARPNESS = 5.0
_RIDGE = 0.3
_GROUP_WEIGHT = 0.1


class Names(NamedTuple):
    """Names of ImageNet-1k's classes, and of groups of them."""

    embeddings: Tensor  # (1000 + groups, 384), unit norm, classes first
    members: Tensor  # (1000 + groups, 1000), 1 for classes in the group, else 0


def text_embedder(classifier: Tensor) -> Callable[[list[str]], Tensor]:
    """A function from sentences to directions (n, d), float32, in the feature space of a classifier.

    A direction works like a row: features are scored by their product with it, both centered. Known classes have norms
    near 1; sentences unlike all of them have less. The regression takes a fraction of a second on the first call, which
    raises NestKALAError if `embed_text` does, or if the file of names is missing or altered.

    Args:
        classifier: weight (1000, d) of the last layer, with classes in ImageNet-1k's order.
    """

    return _Embedder(classifier.detach().float().cpu())


@dataclass
class _Embedder:
    classifier: Tensor

    @cached_property
    def _regression(self) -> Callable[[Tensor], Tensor]:
        return regress(load_names(), self.classifier)

    def __call__(self, sentences: list[str]) -> Tensor:
        return self._regression(embed_text(sentences))


def load_names() -> Names:
    """The shipped names.

    Raises:
        NestKALAError: if the file is missing or altered.
    """
    tensors, metadata = load_shipped(PHOTO_NAMES, PHOTO_NAMES_SHA256)
    embeddings = F.normalize(tensors["embeddings"].float(), dim=1)
    groups = json.loads(metadata["groups"])
    members = torch.eye(len(embeddings), len(embeddings) - len(groups))
    for row, group in zip(members[-len(groups) :], groups, strict=True):
        row[group] = 1
    return Names(embeddings, members)


def regress(names: Names, rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Kernel ridge regression from embeddings (n, 384), unit norm, to directions (n, d).

    The kernel is exp(5 (cosine - 1)), an RBF on the sphere, of embeddings minus their mean. Targets are rows minus
    their mean, normalized; a group's target is the mean of its members', and it counts a tenth of a class.

    Args:
        names: any number of classes, and groups of them.
        rows: rows of the classifier (classes, d).
    """
    center = names.embeddings[: len(rows)].mean(dim=0)
    known = F.normalize(names.embeddings - center, dim=1)
    targets = F.normalize(names.members @ (rows - rows.mean(dim=0)), dim=1)
    weights = torch.full((len(known),), _GROUP_WEIGHT)
    weights[: len(rows)] = 1
    gram = _kernel(known, known) + torch.diag(_RIDGE / weights)
    return partial(_direction, center, known, torch.linalg.cholesky(gram), targets)


def _direction(center: Tensor, known: Tensor, factor: Tensor, targets: Tensor, embeddings: Tensor) -> Tensor:
    near = _kernel(known, F.normalize(embeddings - center, dim=1))  # (known, n)
    return torch.cholesky_solve(near, factor).T @ targets  # n right-hand sides instead of d for the targets


def _kernel(left: Tensor, right: Tensor) -> Tensor:
    return torch.exp(_SHARPNESS * (left @ right.T - 1))
