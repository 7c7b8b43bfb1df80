"""One hash layer whose output nests: the b-bit code is the first b bits of the longest."""

from collections.abc import Sequence

from torch import Tensor, nn

from .contract import HashHead, initialized


class NestedHashHead(HashHead):
    """Linear, optional BatchNorm, tanh: every column is one bit, and every prefix of the columns is a code.

    Each of the three acts on every bit separately, so `head(x)[:, :b]` is exactly the output of a b-bit head with
    the first b rows of the weight.

    Source: Nested Hash Layer (arXiv 2412.08922), section 3.1.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending; the last one, L, is the output width.
        batch_norm: normalize every bit over the batch before tanh. Center-based losses need it; a training batch
            must then hold at least two images.

    Raises:
        ValueError: if the lengths are not ascending positive ints.

    Example:
        >>> head = NestedHashHead(512, lengths=(8, 16, 32))
        >>> h = head(torch.randn(4, 512))  # (4, 32)
        >>> eight_bits = h[:, :8]
    """

    paper = "Nested Hash Layer (arXiv 2412.08922)"
    nested = True

    def __init__(self, in_features: int, lengths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__(in_features, lengths, batch_norm)
        self.linear = initialized(nn.Linear(in_features, self.lengths[-1]))

    @property
    def weight(self) -> Tensor:
        """The hash layer's weight (L, d), one row per bit; `NestedLoss` uses it to balance the lengths."""
        return self.linear.weight

    def logits(self, x: Tensor) -> Tensor:
        """Features (B, d) -> (B, L)."""
        return self.linear(x)
