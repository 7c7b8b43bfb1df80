"""Discrete cyclic coordinate descent: binary codes that maximize a quadratic form, one bit at a time."""

import torch
from torch import Tensor

from .precision import at_least_single

_BLOCK = 8


class NotFiniteError(ValueError):
    """Codes cannot be computed because the inputs contain NaN or infinity."""


def random_codes(num_train: int, bits: int, generator: torch.Generator) -> Tensor:
    """Codes (num_train, bits), each entry -1 or +1 with equal chance.

    Draw once at the longest length and give every shorter length a prefix; otherwise the lengths start with
    conflicting targets.
    """
    return torch.randint(0, 2, (num_train, bits), generator=generator).float() * 2 - 1  # (N, b)


@torch.no_grad()
def dcc(codes: Tensor, linear: Tensor, gram: Tensor, sweeps: int = 10) -> Tensor:
    """Maximize <B, linear> - 1/2 <B gram, B> (off the diagonal) over B in {-1, +1}, from `codes`, bit by bit.

    Every bit is set to the sign of its argument given all others; if the argument is 0, the bit stays. The objective
    never decreases, and if a sweep flips nothing, no single flip can improve it. This is a local method. A sweep
    costs O(N b^2).

    Source: SDH (Shen et al., CVPR 2015) section 3.1; KALAHash (AAAI 2025) eq. 12, as it follows from eq. 11.

    Args:
        codes: initial codes (N, b), entries -1 or +1. Not modified.
        linear: (N, b).
        gram: symmetric (b, b); its diagonal does not matter.
        sweeps: maximum number of passes over all bits; stops early if a pass flips nothing.

    Returns:
        The new codes (N, b).

    Raises:
        ValueError: if shapes do not match, codes are not -1 or +1, or inputs are not finite.
    """
    num, bits = codes.shape
    if linear.shape != (num, bits) or gram.shape != (bits, bits):
        raise ValueError(
            f"codes {tuple(codes.shape)} need linear of the same shape and gram ({bits}, {bits}), "
            f"not {tuple(linear.shape)} and {tuple(gram.shape)}"
        )
    if not (codes.abs() == 1).all():
        raise ValueError("codes must be -1 or +1")
    for name, given in (("linear", linear), ("gram", gram)):
        # If the sum is finite, so is every number. This takes a tenth of the time.
        if not (given.sum().isfinite() or torch.isfinite(given).all()):
            raise NotFiniteError(f"{name} must be finite, but contains {given[~torch.isfinite(given)][0]}")
    linear = at_least_single(linear)
    gram = gram.to(linear.dtype)
    # (b, N), so that one bit of all codes is contiguous; a copy even if the transpose is contiguous already
    rows = codes.to(linear.dtype).T.clone(memory_format=torch.contiguous_format)
    linear, within = linear.T.contiguous(), -gram.clone().fill_diagonal_(0)
    # The other blocks' contribution to a block's arguments is a single product, which reads the codes once.
    blocks, between = [slice(first, first + _BLOCK) for first in range(0, bits, _BLOCK)], within.clone()
    for block in blocks:
        between[block, block] = 0
    keep = torch.finfo(rows.dtype).tiny  # matters only if the argument is 0
    # Allocated once, not per sweep: fresh memory costs as much as the products.
    before, arguments = torch.empty_like(rows), torch.empty_like(rows)
    for _ in range(sweeps):
        before.copy_(rows)
        for block in blocks:
            own, given = rows[block], arguments[block]  # (k, N)
            torch.addmm(linear[block], between[block], rows, out=given)
            for row, argument, coupling in zip(own, given, within[block, block], strict=True):
                torch.sign(argument.addmv_(own.T, coupling).add_(row, alpha=keep), out=row)
        if torch.equal(rows, before):
            break
    return rows.T.contiguous().to(codes.dtype)  # (N, b)
