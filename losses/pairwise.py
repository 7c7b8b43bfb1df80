"""What pairwise objectives share: who is similar to whom, and how likely that is under the codes."""

import torch.nn.functional as F
from torch import Tensor


def shares_label(targets: Tensor) -> Tensor:
    """Multi-hot labels (B, C) -> (B, B), 1 where two images share at least one label, else 0."""
    return (targets @ targets.T > 0).to(targets.dtype)


def pairwise_likelihood(h: Tensor, targets: Tensor) -> Tensor:
    """Mean of softplus(theta) - s * theta, theta_ij = h_i . h_j / 2: the pairs' negative log-likelihood.

    Pairs include i = j. h: relaxed codes (B, b); targets: multi-hot labels (B, C) in h's dtype; a scalar comes back.

    Source: DPSH (Li, Wang, Kang, IJCAI 2016) eq. 1-2; as a mean over entries KALAHash (AAAI 2025) eq. 9.
    """
    return F.binary_cross_entropy_with_logits(h @ h.T / 2, shares_label(targets))
