"""Shared by pairwise losses: which images are similar, their likelihood under the codes, and means over pairs."""

import torch.nn.functional as F
from torch import Tensor


def shares_label(targets: Tensor, others: Tensor | None = None) -> Tensor:
    """Multi-hot labels (B, C) -> (B, B), 1 if two images share at least one label, else 0.

    With labels (N, C) of other images: -> (B, N), the images against those. The result has the (floating) dtype of
    `targets`. Raises ValueError if `targets` is not a matrix of labels, such as class indices.

    Example:
        >>> similar = shares_label(targets)  # in a loss's `terms`, whose targets are multi-hot
    """
    if targets.ndim != 2 or not targets.is_floating_point():
        raise ValueError(
            f"targets must be floating-point multi-hot labels (B, C), not {targets.dtype} {tuple(targets.shape)}"
        )
    others = targets if others is None else others.to(targets)
    return (targets @ others.T > 0).to(targets.dtype)


def similar_pairs(h: Tensor, targets: Tensor) -> Tensor:
    """`shares_label` for the batch that h (B, b) belongs to. Raises ValueError if the numbers of rows differ."""
    if len(h) != len(targets):
        raise ValueError(f"h has {len(h)} rows, but targets have {len(targets)}")
    return shares_label(targets)


def pairwise_likelihood(h: Tensor, targets: Tensor) -> Tensor:
    """Mean of softplus(theta) - s * theta, theta_ij = h_i . h_j / 2: the negative log-likelihood of the pairs.

    Pairs include i = j. h: relaxed codes (B, b); targets: multi-hot labels (B, C) in h's dtype. Returns a scalar.

    Source: DPSH (Li, Wang, Kang, IJCAI 2016) eq. 1-2; as a mean over entries, KALAHash (AAAI 2025) eq. 9.
    """
    return F.binary_cross_entropy_with_logits(h @ h.T / 2, similar_pairs(h, targets))


def off_diagonal(pairs: Tensor) -> Tensor:
    """A copy of the mask (B, B) without the pairs i = j."""
    return pairs.clone().fill_diagonal_(0)


def masked_mean(costs: Tensor, mask: Tensor) -> Tensor:
    """Mean of the (finite) costs where the mask of the same shape is 1; 0 if it is 0 everywhere."""
    return (costs * mask).sum() / mask.sum().clamp(min=1)


def balanced_mean(costs: Tensor, similar: Tensor, counted: Tensor) -> Tensor:
    """Mean of w * cost over the counted pairs S, with equal total weight on similar and dissimilar pairs.

        w_ij = |S| / |S1| if s_ij = 1, |S| / |S0| if s_ij = 0

    This is the mean over the similar pairs plus the mean over the dissimilar pairs; with only one kind, w = 1.

    Source: HashNet (Cao, Long, Wang, Yu, ICCV 2017), weighted maximum likelihood, for similarities of 0 or 1.

    Args:
        costs: of every pair (B, B), finite.
        similar: (B, B), 1 or 0.
        counted: the pairs that count (B, B), 1 or 0.
    """
    return masked_mean(costs, similar * counted) + masked_mean(costs, (1 - similar) * counted)
