"""DCH: deep Cauchy hashing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative, positive
from .contract import HashLoss
from .pairwise import balanced_mean, off_diagonal, similar_pairs
from .signs import signs

# Bits. Below this distance the cost of two dissimilar images is clamped: log d has no bound, and at 512 bits
# single precision cannot tell smaller distances from 0.
_CLOSEST = 1e-3

# The direction of a relaxed code of nearly zero length is noise; its slope, 1 / length, would be almost infinite.
_SHORTEST = 1e-6


class DCH(HashLoss):
    """Weighted cross-entropy of the batch's similarities under a Cauchy distribution of code distances.

        mean w * [s * log(1 + d / gamma)  +  (1 - s) * log(1 + gamma / d)]
        +  quantization * mean_i log(1 + d(|h_i|, 1) / gamma),   d(x, y) = b / 2 * (1 - cos(x, y))

    Pairs are those of different images, i != j; w gives similar and dissimilar pairs equal total weight
    (`balanced_mean`). For binary codes d is the Hamming distance. At one bit d is a step function without slope, so
    that length learns nothing.

    Source: DCH (Cao, Long, Liu, Wang, CVPR 2018), Cauchy cross-entropy and Cauchy quantization loss, as means over
    pairs and over images.

    Args:
        gamma: scale of the distribution in bits, above 0: the distance at which both kinds of pairs cost the same.
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = DCH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "DCH (Cao et al., CVPR 2018)"

    def __init__(self, gamma: float = 20.0, quantization: float = 0.1) -> None:
        super().__init__()
        self.gamma, self.quantization = positive("gamma", gamma), not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar, bits = similar_pairs(h, targets), h.shape[1]
        # One bit has no slope; adaptive weighting would take rounding errors for a gradient.
        directions = F.normalize(h, dim=1, eps=_SHORTEST) if bits > 1 else signs(h) + 0 * h
        distances = self._distance(directions @ directions.T, bits)  # (B, B)
        near = torch.log1p(distances / self.gamma)
        far = torch.log1p(self.gamma / distances.clamp(min=_CLOSEST))
        to_corner = self._distance(directions.abs().sum(dim=1) / bits**0.5, bits)  # (B,)
        return {
            "similarity": balanced_mean(
                similar * near + (1 - similar) * far, similar, off_diagonal(similar.new_ones(similar.shape))
            ),
            "quantization": self.quantization * torch.log1p(to_corner / self.gamma).mean(),
        }

    @staticmethod
    def _distance(cosine: Tensor, bits: int) -> Tensor:
        return (bits / 2 * (1 - cosine)).clamp(min=0)  # a cosine may be rounded above 1
