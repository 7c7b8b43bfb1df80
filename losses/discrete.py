"""Base class for losses that learn discrete codes of the training set."""

from typing import Any, Self

import torch
from torch import Tensor

from .contract import TrainingSet
from .memory import MemoryLoss
from .targets import training_labels


class DiscreteLoss(MemoryLoss):
    """A `MemoryLoss` that also keeps discrete codes of every training image.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: initial discrete codes (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one
            draw).

    Raises:
        ValueError: if targets are not labels, or differ from codes in their number of rows.
    """

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.targets, training.codes[:, :bits], **options)

    def __init__(self, targets: Tensor, codes: Tensor) -> None:
        super().__init__()
        targets = training_labels(targets)
        if len(targets) != len(codes):
            raise ValueError(f"targets have {len(targets)} rows, but codes have {len(codes)}")
        self.register_buffer("codes", codes.clone())
        self.start_memory(targets, torch.zeros_like(codes))

    codes: Tensor  # (N, b)
