"""DSDH: deep supervised discrete hashing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import check_batch, not_negative, positive, whole
from .dcc import dcc
from .discrete import DiscreteLoss
from .memory import remembered
from .pairwise import shares_label


class DSDH(DiscreteLoss):
    """Likelihood of the batch's similarities to all training images, and distance to codes that predict the labels.

    With theta_ij = h_i . u_j / 2 for i in the batch and j in the training set, u_j the last seen h_j (0 before, which
    makes a constant), s_ij = 1 where i and j share a label and B the discrete codes:

        mean[softplus(theta) - s * theta]  +  eta * mean (H - B)^2

    After every epoch `end_epoch` lowers mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2 over the whole training set: by
    W = (B^T B + nu / mu I)^-1 B^T Y, then by a sweep of discrete cyclic coordinate descent over B. The labels reach the
    network through B alone; W needs no gradient.

    mu and nu are the paper's. Its eta, 55, weighs sums: where the likelihood is a mean over pairs that is
    55 b / N, 0.13 to 0.53 at the paper's 5,000 images and 12 to 48 bits; here eta weighs means, whatever N and b are.

    Source: DSDH (Li, Sun, He, Tan, NeurIPS 2017), the objective relaxed to H with its alternating steps.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: where B starts (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one draw).
        mu: weight of the codes' regression on the labels, 0 or more.
        nu: weight of the regression's own size, above 0.
        eta: weight of the quantisation term and, in the sum form above, of U's say in B, 0 or more.
        rounds: how many times W and B take turns at the end of an epoch, 0 or more.

    Raises:
        ValueError: targets and codes of different row numbers, or a number out of its range; on call, sizes that do
            not fit the training set.

    Example:
        >>> codes = random_codes(len(targets), 16, torch.Generator().manual_seed(0))
        >>> loss = DSDH(targets, codes)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "DSDH (Li et al., NeurIPS 2017)"

    def __init__(
        self, targets: Tensor, codes: Tensor, mu: float = 1.0, nu: float = 0.1, eta: float = 0.1, rounds: int = 1
    ) -> None:
        super().__init__(targets, codes)
        self.mu, self.eta = not_negative("mu", mu), not_negative("eta", eta)
        self.nu = positive("nu", nu)  # or the regression need not have one solution
        self.rounds = whole("rounds", rounds, 0)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        check_batch(h, targets, indices, self.memory, self.targets)
        memory = remembered(self.memory, h, indices, keep=self.learns)
        theta = h @ memory.T / 2  # (B, N)
        return {
            "similarity": F.binary_cross_entropy_with_logits(theta, shares_label(targets, self.targets)),
            "quantization": self.eta * F.mse_loss(h, self.codes[indices].to(h.dtype)),
        }

    def regression(self) -> Tensor:
        """W (b, C), which minimises mu |Y - B W|^2 + nu |W|^2 for the present codes B."""
        B = self.codes
        gram = self.mu * (B.T @ B).double()  # equal bits leave single precision nothing of nu beside N
        gram.diagonal().add_(self.nu)
        return torch.linalg.solve(gram, self.mu * (B.T @ self.targets).double()).to(B.dtype)

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Renew B from U and the labels, `rounds` times."""
        for _ in range(self.rounds):
            W = self.regression()
            linear = self.mu * self.targets @ W.T + self.eta * self.memory  # (N, b)
            self.codes.copy_(dcc(self.codes, linear, self.mu * W @ W.T, sweeps=1))

    @torch.no_grad()
    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor:
        """mu |Y - B W|^2 + nu |W|^2 + eta |B - U|^2, W being the `regression` for the present codes."""
        W = self.regression()
        misfit = (self.targets - self.codes @ W).square().sum()
        return self.mu * misfit + self.nu * W.square().sum() + self.eta * (self.codes - self.memory).square().sum()
