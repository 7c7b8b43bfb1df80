"""CSQ: central similarity quantization."""

import math

import torch
from torch import Tensor

from .arguments import not_negative
from .central import CentralLoss
from .pairwise import masked_mean


class CSQ(CentralLoss):
    """Binary cross-entropy between every bit and the image's hash center, plus a smooth distance of |H| from 1.

        mean BCE((h + 1) / 2, (c + 1) / 2)  +  quantization * mean log cosh(|h| - 1)

    c is the center of the image's class; with several labels, the bitwise majority of their centers. The first mean
    skips tied bits and images without labels. (The paper draws tied bits at random, which on average pulls h to 0
    there.)

    Source: CSQ (Yuan et al., CVPR 2020) section 3.3, central similarity and quantization loss, as means over entries.

    Args:
        centers: one per class (C, b), entries -1 or +1 (`hash_centers`).
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if the sizes of h, targets and centers do not match.

    Example:
        >>> loss = CSQ(hash_centers(10, 16, torch.Generator().manual_seed(0)))
        >>> value = loss(h, targets, indices)  # h (B, 16), targets (B, 10)
    """

    paper = "CSQ (Yuan et al., CVPR 2020)"

    def __init__(self, centers: Tensor, quantization: float = 1e-4) -> None:
        super().__init__(centers)
        self.quantization = not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        own = self.own_centers(h, targets)  # (B, b)
        # A bit costs -log((1 + h c) / 2). The bound keeps the cost finite if h is entirely wrong.
        agreement = (h * own).clamp(min=torch.finfo(h.dtype).eps - 1)
        return {
            "central": masked_mean(math.log(2) - torch.log1p(agreement), own.abs()),
            "quantization": self.quantization * (h.abs() - 1).cosh().log().mean(),
        }
