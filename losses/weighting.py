"""What the lengths weigh against each other: by their gradients, or fixed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import at_least_single


@torch.no_grad()
def dominance_weights(gradients: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    """One weight per length, from each length's gradient by the hash layer's weight.

    On the rows that length k owns (its first b_k), longer lengths j > k may pull against it. Where
    -<g_k, g_j> exceeds |g_k|^2 / (m - 1), j is scaled down so that it does not:

        a_kj = min(a_k,j-1, |g_k|^2 / ((m - 1) * -<g_k, g_j>)),   w_j = prod_{k<j} a_kj,   sum_j w_j = m

    and so w_k |g_k|^2 + sum_{j>k} w_j <g_k, g_j> >= 0 for every k: all longer lengths together can at most
    cancel a shorter one's gradient, never reverse it.

    Source: Nested Hash Layer (arXiv 2412.08922), dominance-aware dynamic weighting. Its published code takes the
    shortest length's norm for every k, and bounds a_kj by a_k,k+1 alone. With that the guarantee fails from three
    lengths on, and with every k's own norm, but that bound, from four.

    Args:
        gradients: one (L, d) per length, rows beyond a length's own being 0.
        lengths: ascending, bits, the last one L.

    Returns:
        Weights (m,), positive or 0, of sum m, in the gradients' dtype, at least single precision, and on their device.
    """
    m = len(lengths)
    stacked = at_least_single(torch.stack(list(gradients)))  # (m, L, d)
    by_row = torch.einsum("krd,jrd->rkj", stacked, stacked)  # (L, m, m)
    running = by_row.double().cumsum(0)
    dots = torch.stack([running[bits - 1, k] for k, bits in enumerate(lengths)])  # (m, m): [k][j], over k's own rows
    bounds = dots.diagonal()[:, None] / (m - 1)  # (m, 1)
    reverses = (-dots > bounds).triu(1)  # above the diagonal, where j > k
    factors = torch.where(reverses, bounds / -dots, 1.0).cummin(dim=1).values
    weights = factors.prod(dim=0)
    return (weights * m / weights.sum()).to(stacked.dtype)


def halving_weights(num_lengths: int) -> list[float]:
    """One weight per length, shortest first, each half of the one before, of sum `num_lengths`: 4 : 2 : 1 for three.

    Source: Multi-head Asymmetric Hashing (arXiv 1809.09329).
    """
    total = 2**num_lengths - 1
    return [num_lengths * 2**k / total for k in reversed(range(num_lengths))]
