"""HashNet: deep learning to hash by continuation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import positive, whole
from .contract import HashLoss
from .pairwise import balanced_mean, similar_pairs


class HashNet(HashLoss):
    """Weighted likelihood of the batch's pairwise similarities, for outputs that approach signs during training.

        mean w * [softplus(theta) - s * theta],   theta_ij = alpha * g_i . g_j,   g = tanh(beta * atanh(h))

    Pairs include i = j. w gives similar and dissimilar pairs equal total weight (`balanced_mean`). beta, the
    continuation, is sqrt(1 + epoch // continuation) after that many whole epochs; it starts at 1, where g = h.

    Source: HashNet (Cao, Long, Wang, Yu, ICCV 2017), weighted maximum likelihood by continuation, as a mean over
    entries, for similarities of 0 or 1; the square root follows published code.

    Args:
        alpha: steepness of the likelihood, above 0; None for 10 / b, as published.
        continuation: number of epochs with the same beta, 1 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> loss = HashNet()
        >>> value = loss(h, targets, indices)  # h (B, b), targets (B, C)
        >>> loss.end_epoch()  # after every epoch, so that beta grows
    """

    paper = "HashNet (Cao et al., ICCV 2017)"

    def __init__(self, alpha: float | None = None, continuation: int = 20) -> None:
        super().__init__()
        self.alpha = None if alpha is None else positive("alpha", alpha)
        self.continuation = whole("continuation", continuation, 1)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    epoch: Tensor  # whole epochs so far

    @property
    def beta(self) -> float:
        """The current steepness of the outputs, 1 or more."""
        return math.sqrt(1 + int(self.epoch) // self.continuation)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar = similar_pairs(h, targets)
        alpha = 10 / h.shape[1] if self.alpha is None else self.alpha
        steep = self._continued(h)
        costs = F.binary_cross_entropy_with_logits(alpha * steep @ steep.T, similar, reduction="none")  # (B, B)
        return {"similarity": balanced_mean(costs, similar, similar.new_ones(similar.shape))}

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Count the epoch."""
        self.epoch += 1

    def _continued(self, h: Tensor) -> Tensor:
        beta = (1 + self.epoch // self.continuation).to(h).sqrt()  # stays on h's device: reading it would synchronize
        limit = 1 - torch.finfo(h.dtype).eps  # the largest h for which atanh is finite
        return torch.where(beta == 1, h, torch.tanh(beta * torch.atanh(h.clamp(-limit, limit))))
