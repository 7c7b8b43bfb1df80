"""MDSH: deep hashing with minimal-distance-separated hash centers."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .central import CentralLoss, unit_rows
from .contract import TrainingSet
from .memory import MemoryLoss
from .pairwise import masked_mean, shares_label
from .targets import multi_hot


class MDSH(CentralLoss, MemoryLoss):
    """Cross-entropy to the classes' hash centers, angles between similar images, and the distance of |H| from 1.

        -mean[y log p + (1 - y) log(1 - p)]  +  beta * mean_{i ~ j} softplus((1 - cos(h_i, u_j)) / 2)
        +  quantization * mean (|h| - 1)^2,    p_i = softmax_k(sqrt(b) * cos(h_i, c_k))

    The second mean is over pairs that share a label, i in the batch and j in the whole training set, through a memory
    U of every image's last seen H, which is constant. The batch is written to memory first, and images not yet seen
    (u_j = 0) are skipped. With one class the first term is 0.

    Source: MDSH (Wang et al., CVPR 2023), as means over entries and pairs. The quantization weight is the paper's; the
    weight of pairs is 1.

    Args:
        centers: one per class (C, b), entries -1 or +1 (`hash_centers`).
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        beta, quantization: the weights above, 0 or more.

    Raises:
        ValueError: if centers and targets differ in their number of classes, or an argument is out of range; on call,
            if sizes do not match.

    Example:
        >>> centers = hash_centers(targets.shape[1], 16, torch.Generator().manual_seed(0))
        >>> loss = MDSH(centers, targets)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "MDSH (Wang et al., CVPR 2023)"

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.centers(bits), training.targets, **options)

    def __init__(self, centers: Tensor, targets: Tensor, beta: float = 1.0, quantization: float = 1e-4) -> None:
        super().__init__(centers)
        targets = multi_hot(targets, len(centers))
        self.beta, self.quantization = not_negative("beta", beta), not_negative("quantization", quantization)
        self.start_memory(targets, centers.new_zeros(len(targets), centers.shape[1]))

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        cosines = self.cosines(h, targets)  # (B, C)
        memory = self.remembered(h, targets, indices)
        return {
            "central": self._cross_entropy(h.shape[1] ** 0.5 * cosines, targets),
            "similarity": self.beta * self._attraction(h, targets, memory),
            "quantization": self.quantization * (h.abs() - 1).square().mean(),
        }

    @staticmethod
    def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return logits.new_zeros(())
        # 1 - p rounds to 0 if p is nearly 1, which only the largest can be: sum all others for that one.
        top = logits.argmax(dim=1, keepdim=True)  # (B, 1)
        rest = torch.log1p(-logits.softmax(dim=1).scatter(1, top, 0))
        others = logits.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
        rest = rest.scatter(1, top, others - logits.logsumexp(dim=1, keepdim=True))  # log(1 - p), (B, C)
        return -(targets * logits.log_softmax(dim=1) + (1 - targets) * rest).mean()

    def _attraction(self, h: Tensor, targets: Tensor, memory: Tensor) -> Tensor:
        similar = shares_label(targets, self.targets) * (memory != 0).any(dim=1)  # (B, N)
        return masked_mean(F.softplus((1 - unit_rows(h) @ unit_rows(memory).T) / 2), similar)
