"""Discrete cyclic coordinate descent: binary codes that maximize a quadratic form, one bit at a time."""

import torch
from torch import Tensor

from .precision import at_least_single

_BLOCK = 8


class NotFiniteError(ValueError):
    """Codes cannot be computed from numbers that are not finite."""


def random_codes(num_train: int, bits: int, generator: torch.Generator) -> Tensor:
    """Codes (num_train, bits), each entry -1 or +1 with equal chance.

    Draw once at the longest length and give every shorter one its prefix, or lengths begin with
    conflicting targets.
    """
    return torch.randint(0, 2, (num_train, bits), generator=generator).float() * 2 - 1  # (N, b)


@torch.no_grad()
def dcc(codes: Tensor, linear: Tensor, gram: Tensor, sweeps: int = 10) -> Tensor:
    """Maximize <B, linear> - 1/2 <B gram, B> (off the diagonal) over B in {-1, +1}, from `codes`, bit by bit.

    Every bit is set to the sign of its argument given all others; an argument of 0 keeps the bit. The
    objective never falls, and where the sweeps end before their number is up, no single flip improves it.
    It is a local method. A sweep costs O(N b^2).

    Source: SDH (Shen et al., CVPR 2015) section 3.1; KALAHash (AAAI 2025) eq. 12, as it follows from eq. 11.

    Args:
        codes: where to start (N, b), entries -1 or +1. Left as it is.
        linear: (N, b).
        gram: symmetric (b, b); its diagonal does not matter.
        sweeps: passes over all bits at most; fewer where one flips nothing.

    Returns:
        The new codes (N, b).

    Raises:
        ValueError: shapes that do not fit together, codes other than -1 and +1, or numbers that are not finite.
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
        # A sum that is finite says it of every number, at a tenth of the time.
        if not (given.sum().isfinite() or torch.isfinite(given).all()):
            raise NotFiniteError(f"{name} must be finite, and holds {given[~torch.isfinite(given)][0]}")
    linear = at_least_single(linear)
    gram = gram.to(linear.dtype)
    # (b, N), so that a bit of all codes lies in one piece; a copy even where the transpose is contiguous already
    rows = codes.to(linear.dtype).T.clone(memory_format=torch.contiguous_format)
    linear, within = linear.T.contiguous(), -gram.clone().fill_diagonal_(0)
    # What other blocks of bits add to the arguments of a block's is one product, which reads the codes once.
    blocks, between = [slice(first, first + _BLOCK) for first in range(0, bits, _BLOCK)], within.clone()
    for block in blocks:
        between[block, block] = 0
    keep = torch.finfo(rows.dtype).tiny  # decides where the argument is 0, and nowhere else
    # Once, not in every sweep: fresh memory costs as much as the products.
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
