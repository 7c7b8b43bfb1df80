"""Base class for losses with one fixed hash center per class."""

from typing import Any, Self

import torch
from torch import Tensor

from .centers import majority_centers
from .contract import HashLoss, TrainingSet


def unit_rows(x: Tensor) -> Tensor:
    """The rows of x (B, b) scaled to unit norm. A row of zeros stays zero and gets no gradient."""
    norms = x.norm(dim=1, keepdim=True)
    return x / norms.masked_fill(norms == 0, torch.inf)


class CentralLoss(HashLoss):
    """A `HashLoss` that keeps the hash centers for its length in a buffer.

    Args:
        centers: one per class (C, b), entries -1 or +1 (`hash_centers`).

    Raises:
        ValueError: on call, if the sizes of h, targets and centers do not match.
    """

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.centers(bits), **options)

    def __init__(self, centers: Tensor) -> None:
        super().__init__()
        self.num_classes = len(centers)
        self.register_buffer("centers", centers.clone())

    centers: Tensor  # (C, b)

    def own_centers(self, h: Tensor, targets: Tensor) -> Tensor:
        """The center of every image (B, b): its class's, or with several labels their bitwise majority, 0 for ties."""
        self._check_sizes(h, targets)
        return majority_centers(targets, self.centers.to(h.dtype))

    def cosines(self, h: Tensor, targets: Tensor) -> Tensor:
        """Cosine of every image's h with every class's center (B, C), 0 for images whose h is 0."""
        self._check_sizes(h, targets)
        return unit_rows(h) @ unit_rows(self.centers.to(h.dtype)).T

    def _check_sizes(self, h: Tensor, targets: Tensor) -> None:
        """Raise ValueError if h (B, b), targets (B, C) and the centers do not match."""
        classes, bits = self.centers.shape
        if h.shape[1] != bits or targets.shape != (len(h), classes):
            raise ValueError(
                f"centers of {classes} classes at {bits} bits do not fit h {tuple(h.shape)} "
                f"and targets {tuple(targets.shape)}"
            )
