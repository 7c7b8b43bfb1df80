"""LCDSH: locality-constrained deep supervised hashing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss
from .pairwise import pairwise_likelihood
from .signs import signs


class LCDSH(HashLoss):
    """Likelihood of the batch's pairwise similarities, which the signs of the outputs should match as well.

        mean softplus(-s' * theta)  +  quantization * mean (sigmoid(sign h_i . sign h_j / 2) - sigmoid(theta))^2,
        theta_ij = h_i . h_j / 2,   s' = +1 for similar pairs, -1 for dissimilar

    Pairs include i = j. The first term is DPSH's, softplus(theta) - s * theta, written with signs. In the second term
    the signs are constant: where DPSH compares every entry to its sign, it compares the probabilities of pairs.

    Source: LCDSH (Zhu, Gao, IJCAI 2017), pairwise likelihood and locality constraint, as means over entries.

    Args:
        quantization: weight of the second term, 0 or more; 3 follows published code.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = LCDSH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "LCDSH (Zhu and Gao, IJCAI 2017)"

    def __init__(self, quantization: float = 3.0) -> None:
        super().__init__()
        self.quantization = not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        codes = signs(h)
        return {
            "similarity": pairwise_likelihood(h, targets),
            "quantization": self.quantization
            * F.mse_loss(torch.sigmoid(h @ h.T / 2), torch.sigmoid(codes @ codes.T / 2)),
        }
