"""MAH's cascade head: the longest code comes from the features, each shorter one from the next longer."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .contract import HashHead, initialized


class CascadeHashHead(HashHead):
    """A Linear to the longest length, then from its output before tanh a Linear to the next shorter, and so on.

    Optional BatchNorm and tanh come last and act on each code separately. A shorter code is not a prefix of a longer.

    Source: Multi-head Asymmetric Hashing (arXiv 1809.09329), MAH-cascade.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending; the output width is their sum.
        batch_norm: normalize every bit over the batch before tanh.

    Raises:
        ValueError: if the lengths are not ascending positive ints.

    Example:
        >>> head = CascadeHashHead(512, lengths=(4, 8, 16))
        >>> h = head(torch.randn(2, 512))  # (2, 28)
        >>> eight_bits = h[:, head.columns(8)]  # (2, 8)
    """

    paper = "MAH-cascade (arXiv 1809.09329)"

    def __init__(self, in_features: int, lengths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__(in_features, lengths, batch_norm)
        longest_first = self.lengths[::-1]
        linears = [nn.Linear(*sizes) for sizes in pairwise((in_features, *longest_first))]
        initialized(linears[0])
        self.linears = nn.ModuleList(linears)

    def logits(self, x: Tensor) -> Tensor:
        """Features (B, d) -> (B, width), shortest code first."""
        codes = []
        for linear in self.linears:
            x = linear(x)
            codes.append(x)
        return torch.cat(codes[::-1], dim=1)
