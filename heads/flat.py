"""MAH's flat head: one independent hash layer per length."""

from collections.abc import Sequence

from torch import Tensor, nn

from .contract import HashHead, initialized


class FlatHashHead(HashHead):
    """An independent Linear, optional BatchNorm and tanh for every length.

    The lengths share only the features: an 8-bit code is not a prefix of the 16-bit one.

    Source: Multi-head Asymmetric Hashing (arXiv 1809.09329), MAH-flat.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending; the output width is their sum.
        batch_norm: normalize every bit over the batch before tanh.

    Raises:
        ValueError: if the lengths are not ascending positive ints.

    Example:
        >>> head = FlatHashHead(512, lengths=(4, 8, 16))
        >>> h = head(torch.randn(2, 512))  # (2, 28)
        >>> eight_bits = h[:, head.columns(8)]  # (2, 8)
    """

    paper = "MAH-flat (arXiv 1809.09329)"

    def __init__(self, in_features: int, lengths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__(in_features, lengths, batch_norm)
        self.linear = initialized(nn.Linear(in_features, self.width))  # the layers of all lengths, stacked

    def logits(self, x: Tensor) -> Tensor:
        """Features (B, d) -> (B, width)."""
        return self.linear(x)
