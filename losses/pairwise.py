"""What pairwise objectives share: who is similar to whom, and how likely that is under the codes."""

import torch.nn.functional as F
from torch import Tensor


def shares_label(targets: Tensor) -> Tensor:
    """Multi-hot labels (B, C) -> (B, B), 1 where two images share at least one label, else 0."""
    return (targets @ targets.T > 0).to(targets.dtype)


def pairwise_likelihood(h: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the pairs' similarity, theta_ij = h_i . h_j / 2; pairs include i = j.

    Source: DPSH (Li, Wang, Kang, IJCAI 2016) eq. 1-2; as a mean over entries KALAHash (AAAI 2025) eq. 9.
    """
    theta = h @ h.T / 2  # (B, B)
    return (F.softplus(theta) - shares_label(targets) * theta).mean()
