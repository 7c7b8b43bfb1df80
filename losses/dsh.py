"""DSH: deep supervised hashing."""

from typing import ClassVar

from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss
from .pairwise import masked_mean, off_diagonal, similar_pairs


class DSH(HashLoss):
    """Contrastive: similar codes together, dissimilar codes at least a margin apart, all entries near -1 or +1.

        mean[s * d2 / 2  +  (1 - s) * max(margin - d2, 0) / 2]  +  quantization * mean_i | |h_i| - 1 |_1,
        d2_ij = |h_i - h_j|^2

    Pairs are those of different images, i != j; for a batch of one image their mean is 0. For binary codes d2 is four
    times the Hamming distance.

    Source: DSH (Liu, Wang, Shan, Chen, CVPR 2016), relaxed pairwise loss with regularizer, as means over pairs and over
    images; the paper adds the second term for both images of a pair, which doubles its weight.

    Args:
        margin: squared distance beyond which dissimilar images cost nothing, 0 or more; None for 2b, as published.
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = DSH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "DSH (Liu et al., CVPR 2016)"
    renamed: ClassVar = {"alpha": "quantization"}

    def __init__(self, margin: float | None = None, quantization: float = 0.01) -> None:
        super().__init__()
        self.margin = None if margin is None else not_negative("margin", margin)
        self.quantization = not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar = similar_pairs(h, targets)
        margin = 2 * h.shape[1] if self.margin is None else self.margin
        norms = h.square().sum(dim=1)  # (B,)
        distances = norms[:, None] + norms - 2 * h @ h.T  # (B, B), squared; avoids a (B, B, b) tensor of differences
        costs = (similar * distances + (1 - similar) * (margin - distances).clamp(min=0)) / 2
        return {
            "similarity": masked_mean(costs, off_diagonal(similar.new_ones(similar.shape))),
            "quantization": self.quantization * (h.abs() - 1).abs().sum(dim=1).mean(),
        }
