"""One hash layer whose output nests: length b's code is the first b bits of the longest."""

from collections.abc import Sequence

from torch import Tensor, nn

from .contract import HashHead, initialized


class NestedHashHead(HashHead):
    """Linear, optional BatchNorm, tanh: every column is one bit, and a prefix of the columns is a code.

    Each of the three acts bit by bit, so `head(x)[:, :b]` is exactly what a head of b bits with the
    first b rows of the weight would give.

    Source: Nested Hash Layer (arXiv 2412.08922), section 3.1.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending; the last one, L, is the width of the output.
        batch_norm: normalize every bit over the batch before tanh. Center-based losses need it; in
            training it refuses a batch of one.

    Raises:
        ValueError: lengths that are not ascending positive ints.

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
        """The hash layer's weight (L, d), one row per bit: what `NestedLoss` balances the lengths on."""
        return self.linear.weight

    def logits(self, x: Tensor) -> Tensor:
        """Features (B, d) -> (B, L)."""
        return self.linear(x)
