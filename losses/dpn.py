"""DPN: deep polarized network."""

import math

from torch import Tensor

from .arguments import positive
from .central import CentralLoss
from .pairwise import masked_mean


class DPN(CentralLoss):
    """Polarization: pushes every output at least `margin` from 0, toward the side of its image's hash center.

        mean max(margin - h * c, 0)

    c is the center of the image's class; with several labels, the bitwise majority of their centers. The mean skips
    tied bits and images without labels.

    Source: DPN (Fan et al., IJCAI 2020), polarization loss, as a mean over entries. There it sees outputs before tanh
    and the margin is 1; the default here is tanh(1).

    Args:
        centers: one per class (C, b), entries -1 or +1 (`hash_centers`).
        margin: above 0; no output can reach a margin of 1 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if the sizes of h, targets and centers do not match.

    Example:
        >>> loss = DPN(hash_centers(10, 16, torch.Generator().manual_seed(0)))
        >>> value = loss(h, targets, indices)  # h (B, 16), targets (B, 10)
    """

    paper = "DPN (Fan et al., IJCAI 2020)"

    def __init__(self, centers: Tensor, margin: float = math.tanh(1.0)) -> None:
        super().__init__(centers)
        self.margin = positive("margin", margin)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        own = self.own_centers(h, targets)  # (B, b)
        return {"polarization": masked_mean((self.margin - h * own).relu(), own.abs())}
