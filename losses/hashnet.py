"""HashNet: deep learning to hash by continuation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import positive, whole
from .contract import HashLoss
from .pairwise import balanced_mean, similar_pairs


class HashNet(HashLoss):
    """Weighted likelihood of the batch's pairwise similarities, of outputs that grow ever more like signs.

        mean w * [softplus(theta) - s * theta],   theta_ij = alpha * g_i . g_j,   g = tanh(beta * atanh(h))

    Pairs include i = j. w gives similar and dissimilar pairs equal weight together (`balanced_mean`). beta, the
    continuation, starts at 1, where g = h, and is sqrt(1 + epoch // continuation) after so many whole epochs.

    Source: HashNet (Cao, Long, Wang, Yu, ICCV 2017), weighted maximum likelihood by continuation, as a mean over
    entries, similarities being 0 or 1; the square root is as in published code.

    Args:
        alpha: steepness of the likelihood, above 0; None for 10 / b, as published.
        continuation: epochs in a stage of equal beta, 1 or more.

    Raises:
        ValueError: a number out of its range; on call, h and targets of different row numbers.

    Example:
        >>> loss = HashNet()
        >>> value = loss(h, targets, indices)  # h (B, b), targets (B, C)
        >>> loss.end_epoch()  # after every epoch: beta grows by it
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
        """How steep the outputs are by now, 1 or more."""
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
        beta = (1 + self.epoch // self.continuation).to(h).sqrt()  # on h's device: to read it would wait for that
        limit = 1 - torch.finfo(h.dtype).eps  # the largest h of which atanh is finite
        return torch.where(beta == 1, h, torch.tanh(beta * torch.atanh(h.clamp(-limit, limit))))
