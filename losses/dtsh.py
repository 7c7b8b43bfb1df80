"""DTSH: deep supervised hashing with triplet labels."""

import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss
from .pairwise import masked_mean, off_diagonal, similar_pairs
from .signs import signs


class DTSH(HashLoss):
    """Likelihood of the batch's triplets, plus the distance of the outputs to their own signs.

        mean softplus(alpha - theta_qp + theta_qn)  +  quantization * mean (H - sign H)^2,   theta_ij = h_i . h_j / 2

    Triplets are all (q, p, n) of the batch with p similar to q, p != q, and n dissimilar; without any, their mean is
    0. All are computed at once: memory is a few times B^3 numbers, 64 MiB each for B = 256.

    Source: DTSH (Wang, Shi, Kitani, ACCV 2016), negative triplet log-likelihood with quantization, as means over
    triplets and over entries.

    Args:
        alpha: margin of the likelihood, 0 or more. theta differs by at most b, so short codes cannot reach a large one.
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = DTSH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "DTSH (Wang et al., ACCV 2016)"

    def __init__(self, alpha: float = 5.0, quantization: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.quantization = not_negative("alpha", alpha), not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        similar = similar_pairs(h, targets)
        theta = h @ h.T / 2  # (B, B)
        triplets = off_diagonal(similar)[:, :, None] * (1 - similar)[:, None, :]  # (B, B, B), by q, p, n
        costs = -F.logsigmoid(theta[:, :, None] - theta[:, None, :] - self.alpha)
        return {
            "similarity": masked_mean(costs, triplets),
            "quantization": self.quantization * F.mse_loss(h, signs(h)),
        }
