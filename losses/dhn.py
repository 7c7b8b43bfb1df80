"""DHN: deep hashing network."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .contract import TrainingSet
from .memory import MemoryLoss
from .pairwise import shares_label
from .targets import training_labels


class DHN(MemoryLoss):
    """Likelihood of the batch's similarities to all training images, plus a smooth distance of |H| from 1.

        mean[softplus(theta) - s * theta]  +  quantization * mean log cosh(|H| - 1),   theta_ij = h_i . u_j / 2

    i runs over the batch, j over the whole training set including i itself, through a memory U of every image's last
    seen output, which is constant. The batch is written to memory before the loss is computed; an image not yet seen
    has u_j = 0 and adds log 2 without gradient.

    Source: DHN (Zhu, Long, Wang, Cao, AAAI 2016), pairwise cross-entropy and pairwise quantization loss, as means
    over entries. The paper pairs the images of a batch; the memory follows published code.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        bits: code length b, 1 or more.
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if sizes do not match each other or the training set.

    Example:
        >>> loss = DHN(targets, bits=16)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "DHN (Zhu et al., AAAI 2016)"

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.targets, bits, **options)

    def __init__(self, targets: Tensor, bits: int, quantization: float = 0.1) -> None:
        super().__init__()
        self.quantization = not_negative("quantization", quantization)
        targets = training_labels(targets)
        dtype = targets.dtype if targets.is_floating_point() else torch.get_default_dtype()
        self.start_memory(targets, targets.new_zeros(len(targets), bits, dtype=dtype))

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        memory = self.remembered(h, targets, indices)
        log_cosh = torch.sinh(h.abs() - 1).square().log1p() / 2  # (B, b); cosh would lose small distances to rounding
        return {
            "similarity": F.binary_cross_entropy_with_logits(h @ memory.T / 2, shares_label(targets, self.targets)),
            "quantization": self.quantization * log_cosh.mean(),
        }
