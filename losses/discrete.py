"""What losses that learn discrete codes of the training set have in common."""

from typing import Any, Self

import torch
from torch import Tensor

from .arguments import check_batch
from .contract import HashLoss, TrainingSet
from .targets import training_labels


class DiscreteLoss(HashLoss):
    """A `HashLoss` that keeps discrete codes and the last seen output of every training image, in buffers.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: where the discrete codes start (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of
            one draw).

    Raises:
        ValueError: targets that are no labels, or of another row number than codes.
    """

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.targets, training.codes[:, :bits], **options)

    def __init__(self, targets: Tensor, codes: Tensor) -> None:
        super().__init__()
        targets = training_labels(targets)
        if len(targets) != len(codes):
            raise ValueError(f"{len(targets)} rows of targets do not fit {len(codes)} rows of codes")
        self.num_classes = targets.shape[1]
        self.register_buffer("targets", targets.to(codes.dtype), persistent=False)
        self.register_buffer("codes", codes.clone())
        self.register_buffer("memory", torch.zeros_like(codes))

    targets: Tensor  # (N, C)
    codes: Tensor  # (N, b)
    memory: Tensor  # (N, b), U; 0 where nothing has been seen

    def remember(self, h: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Check the batch and, where the loss `learns`, take note of its outputs (B, b), without gradient.

        Raises:
            ValueError: h, targets and indices that do not fit together, or the training set.
        """
        check_batch(h, targets, indices, self.memory, self.targets)
        if self.learns:
            self.memory[indices] = h.detach().to(self.memory.dtype)
