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
    own_rows = torch.tensor([b - 1 for b in lengths], device=stacked.device)
    dots = by_row.cumsum(0)[own_rows].double().tolist()  # [k][k'][j]: over k's own rows

    weights = [1.0] * m
    for k in range(m - 1):
        norm, scale = dots[k][k][k], 1.0
        for j in range(k + 1, m):
            against = -dots[k][k][j]
            if against > norm / (m - 1):
                scale = min(scale, norm / ((m - 1) * against))
            weights[j] *= scale
    total = sum(weights)
    return stacked.new_tensor([w * m / total for w in weights])


def halving_weights(num_lengths: int) -> list[float]:
    """One weight per length, shortest first, each half of the one before, of sum `num_lengths`: 4 : 2 : 1 for three.

    Source: Multi-head Asymmetric Hashing (arXiv 1809.09329).
    """
    total = 2**num_lengths - 1
    return [num_lengths * 2**k / total for k in reversed(range(num_lengths))]
