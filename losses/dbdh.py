"""DBDH: deep balanced discrete hashing."""

from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss
from .pairwise import pairwise_likelihood
from .signs import sign_through


class DBDH(HashLoss):
    """Likelihood of the batch's pairwise similarities under binary codes, plus a term that balances every bit.

        mean[softplus(theta) - s * theta]  +  alpha * mean_k (mean_i b_ik)^2,   theta_ij = b_i . b_j / 2,   b = sign h

    Pairs include i = j. The gradient of the sign is taken to be the identity (`sign_through`). The loss sees only the
    signs, so no term needs to pull h toward them.

    Source: DBDH (Zheng, Zhang, Lu, Neurocomputing 2020), discrete likelihood and balance, as means over entries
    and without the quantization term.

    Args:
        alpha: weight of the balance, 0 or more.

    Raises:
        ValueError: if an argument is out of range; on call, if h and targets differ in their number of rows.

    Example:
        >>> value = DBDH()(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "DBDH (Zheng et al., Neurocomputing 2020)"

    def __init__(self, alpha: float = 0.1) -> None:
        super().__init__()
        self.alpha = not_negative("alpha", alpha)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        codes = sign_through(h)
        return {
            "similarity": pairwise_likelihood(codes, targets),
            "balance": self.alpha * codes.mean(dim=0).square().mean(),
        }
