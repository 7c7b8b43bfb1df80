"""DSDH: deep supervised discrete hashing."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative, positive, whole
from .dcc import dcc
from .discrete import DiscreteLoss
from .pairwise import shares_label


class DSDH(DiscreteLoss):
    """Likelihood of the batch's similarities to all training images, plus the distance to codes that predict labels.

    With theta_ij = h_i . u_j / 2 for i in the batch and j in the training set, u_j the last seen h_j (0 before, which
    adds a constant), s_ij = 1 if i and j share a label, and B the discrete codes:

        mean[softplus(theta) - s * theta]  +  quantization * mean (H - B)^2

    After every epoch, `end_epoch` lowers mu |Y - B W|^2 + nu |W|^2 + quantization |B - U|^2 over the whole training
    set: first by W = (B^T B + nu / mu I)^-1 B^T Y, then by a sweep of discrete cyclic coordinate descent over B. The
    labels reach the network only through B; W needs no gradient.

    mu and nu are the paper's. The paper's eta, 55, corresponds to `quantization` but weighs sums: with the likelihood
    as a mean over pairs it is 55 b / N, 0.13 to 0.53 at the paper's 5,000 images and 12 to 48 bits. Here
    `quantization` weighs means, independent of N and b.

    Source: DSDH (Li, Sun, He, Tan, NeurIPS 2017), the objective relaxed to H, with its alternating steps.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: initial B (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one draw).
        mu: weight of the regression from codes to labels, 0 or more.
        nu: weight of the regression's norm, above 0.
        quantization: weight of the distance to B and, in the sum form above, of U's influence on B, 0 or more.
        rounds: number of alternating updates of W and B at the end of an epoch, 0 or more.

    Raises:
        ValueError: if targets and codes differ in their number of rows, or an argument is out of range; on call, if
            the sizes do not match the training set.

    Example:
        >>> codes = random_codes(len(targets), 16, torch.Generator().manual_seed(0))
        >>> loss = DSDH(targets, codes)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "DSDH (Li et al., NeurIPS 2017)"
    renamed: ClassVar = {"eta": "quantization"}

    def __init__(
        self,
        targets: Tensor,
        codes: Tensor,
        mu: float = 1.0,
        nu: float = 0.1,
        quantization: float = 0.1,
        rounds: int = 1,
    ) -> None:
        super().__init__(targets, codes)
        self.mu, self.quantization = not_negative("mu", mu), not_negative("quantization", quantization)
        self.nu = positive("nu", nu)  # otherwise the solution may not be unique
        self.rounds = whole("rounds", rounds, 0)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        theta = h @ self.remembered(h, targets, indices).T / 2  # (B, N)
        return {
            "similarity": F.binary_cross_entropy_with_logits(theta, shares_label(targets, self.targets)),
            "quantization": self.quantization * F.mse_loss(h, self.codes[indices].to(h.dtype)),
        }

    def regression(self) -> Tensor:
        """W (b, C), which minimizes mu |Y - B W|^2 + nu |W|^2 for the current codes B."""
        B = self.codes
        gram = self.mu * (B.T @ B).double()  # with equal bits, nu is lost next to N in single precision
        gram.diagonal().add_(self.nu)
        return torch.linalg.solve(gram, self.mu * (B.T @ self.targets).double()).to(B.dtype)

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Update B from U and the labels, `rounds` times."""
        for _ in range(self.rounds):
            W = self.regression()
            linear = self.mu * self.targets @ W.T + self.quantization * self.memory  # (N, b)
            self.codes.copy_(dcc(self.codes, linear, self.mu * W @ W.T, sweeps=1))

    @torch.no_grad()
    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor:
        """mu |Y - B W|^2 + nu |W|^2 + quantization |B - U|^2, with W the `regression` for the current codes."""
        W = self.regression()
        misfit = (self.targets - self.codes @ W).square().sum()
        distance = (self.codes - self.memory).square().sum()
        return self.mu * misfit + self.nu * W.square().sum() + self.quantization * distance
