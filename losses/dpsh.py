"""DPSH: deep pairwise-supervised hashing."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss
from .pairwise import pairwise_likelihood
from .signs import signs


class DPSH(HashLoss):
    """Likelihood of the batch's pairwise similarities, plus the distance of the outputs to their own signs.

        mean[softplus(theta) - s * theta]  +  quantization * mean (H - sign H)^2,   theta_ij = h_i . h_j / 2

    This is KIDDO without discrete codes and without text.

    Source: DPSH (Li, Wang, Kang, IJCAI 2016) eq. 4, over the pairs of a batch, as means over entries.

    Args:
        quantization: weight of the second term, 0 or more.

    Raises:
        ValueError: if quantization is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = DPSH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "DPSH (Li et al., IJCAI 2016)"
    renamed: ClassVar = {"eta": "quantization"}

    def __init__(self, quantization: float = 0.1) -> None:
        super().__init__()
        self.quantization = not_negative("quantization", quantization)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        return {
            "similarity": pairwise_likelihood(h, targets),
            "quantization": self.quantization * F.mse_loss(h, signs(h)),
        }
