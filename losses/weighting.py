"""Weights of the lengths: from their gradients, or fixed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import at_least_single


@torch.no_grad()
def dominance_weights(gradients: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """One weight per length, from each length's gradient with respect to the hash layer's weight.

    On the rows that length k owns (its first b_k), longer lengths j > k may pull against it. If -<g_k, g_j> exceeds
    |g_k|^2 / (m - 1), j is scaled down so that it no longer does:

        a_kj = min(a_k,j-1, |g_k|^2 / ((m - 1) * -<g_k, g_j>)),   w_j = prod_{k<j} a_kj,   sum_j w_j = m

    Then w_k |g_k|^2 + sum_{j>k} w_j <g_k, g_j> >= 0 for every k: all longer lengths together can at most cancel a
    shorter one's gradient, never reverse it.

    Source: Nested Hash Layer (arXiv 2412.08922), dominance-aware dynamic weighting. Its published code uses the
    shortest length's norm for every k and bounds a_kj only by a_k,k+1. The guarantee then fails with three or more
    lengths, and with every k's own norm but that bound, with four or more.

    Args:
        gradients: one (L, d) per length, with 0 in the rows beyond a length's own.
        lengths: in bits, ascending; the last one is L.

    Returns:
        Weights (m,), 0 or more, summing to m, in the gradients' dtype (at least single precision) and on their device.
    """
    m = len(lengths)
    stacked = at_least_single(torch.stack(list(gradients)))  # (m, L, d)
    by_row = torch.einsum("krd,jrd->rkj", stacked, stacked)  # (L, m, m)
    running = by_row.double().cumsum(0)
    dots = torch.stack([running[bits - 1, k] for k, bits in enumerate(lengths)])  # (m, m): [k][j], on the rows k owns
    bounds = dots.diagonal()[:, None] / (m - 1)  # (m, 1)
    reverses = (-dots > bounds).triu(1)  # above the diagonal: j > k
    factors = torch.where(reverses, bounds / -dots, 1.0).cummin(dim=1).values
    weights = factors.prod(dim=0)
    return (weights * m / weights.sum()).to(stacked.dtype)


def halving_weights(num_lengths: int) -> list[float]:
    """One weight per length, shortest first, each half the one before, summing to `num_lengths`; 4 : 2 : 1 for three.

    Source: Multi-head Asymmetric Hashing (arXiv 1809.09329).
    """
    total = 2**num_lengths - 1
    return [num_lengths * 2**k / total for k in reversed(range(num_lengths))]
