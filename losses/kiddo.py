"""KIDDO: knowledge-guided discrete optimization, KALAHash's objective."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative
from .dcc import dcc
from .discrete import DiscreteLoss
from .pairwise import pairwise_likelihood


class KIDDO(DiscreteLoss):
    """Pairwise similarity, distance to discrete codes, and alignment of the codes with text anchors.

    With theta_ij = h_i . h_j / 2, s_ij = 1 if i and j share a label, B the discrete codes and T the anchors:

        gamma * mean[softplus(theta) - s * theta]  +  quantization * mean (H - B)^2  +  alpha * mean (Y - B T^T)^2

    The first two terms train the network, the third the anchors. After every epoch `end_epoch` updates B for the
    whole training set by discrete cyclic coordinate descent on
    alpha |Y - B T^T|^2 + quantization |U - B|^2, where U is the last seen H of every training image (0 before).

    Source: KALAHash (AAAI 2025) eq. 8-12, whose beta is `quantization`.

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: initial B (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one draw).
        alpha, quantization, gamma: the weights above, 0 or more.

    Raises:
        ValueError: if targets and codes differ in their number of rows, or an argument is out of range; on call, if
            there are no anchors, or sizes do not match the training set.

    Example:
        >>> codes = random_codes(len(targets), 16, torch.Generator().manual_seed(0))
        >>> loss = KIDDO(targets, codes)
        >>> value = loss(h, targets[indices], indices, anchors)  # h (B, 16), anchors (C, 16)
    """

    paper = "KALAHash (AAAI 2025)"
    renamed: ClassVar = {"beta": "quantization"}
    uses_anchors = True

    def __init__(
        self, targets: Tensor, codes: Tensor, alpha: float = 0.1, quantization: float = 1.0, gamma: float = 3.0
    ) -> None:
        super().__init__(targets, codes)
        self.alpha, self.quantization = not_negative("alpha", alpha), not_negative("quantization", quantization)
        self.gamma = not_negative("gamma", gamma)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        anchors = self._required(anchors)
        self.remember(h, targets, indices)
        codes = self.codes[indices].to(h.dtype)  # (B, b)
        return {
            "similarity": self.gamma * pairwise_likelihood(h, targets),
            "quantization": self.quantization * F.mse_loss(h, codes),
            "alignment": self.alpha * F.mse_loss(codes @ anchors.T, targets),
        }

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Update B by DCC from the anchors (C, b), U and the labels. Raises ValueError without anchors."""
        anchors = self._required(anchors).to(self.codes)
        linear = self.alpha * self.targets @ anchors + self.quantization * self.memory  # (N, b)
        self.codes.copy_(dcc(self.codes, linear, self.alpha * anchors.T @ anchors))

    @torch.no_grad()
    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor:
        """alpha |Y - B T^T|^2 + quantization |U - B|^2. Raises ValueError without anchors."""
        misfit = (self.targets - self.codes @ self._required(anchors).to(self.codes).T).square().sum()
        return self.alpha * misfit + self.quantization * (self.memory - self.codes).square().sum()

    @staticmethod
    def _required(anchors: Tensor | None) -> Tensor:
        if anchors is None:
            raise ValueError("KIDDO needs anchors: the classes' text anchors in code space, (C, b)")
        return anchors
