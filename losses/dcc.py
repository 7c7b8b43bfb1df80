"""Discrete cyclic coordinate descent: binary codes that maximise a quadratic form, one bit at a time."""

import torch
from torch import Tensor


def random_codes(num_train: int, bits: int, generator: torch.Generator) -> Tensor:
    """Codes (num_train, bits), each entry -1 or +1 with equal chance.

    Draw once at the longest length and give every shorter one its prefix, or lengths begin with
    conflicting targets.
    """
    return torch.randint(0, 2, (num_train, bits), generator=generator).float() * 2 - 1  # (N, b)


@torch.no_grad()
def dcc(codes: Tensor, linear: Tensor, gram: Tensor, sweeps: int = 10) -> Tensor:
    """Maximise <B, linear> - 1/2 <B gram, B> (off the diagonal) over B in {-1, +1}, from `codes`, bit by bit.

    Every bit is set to the sign of its argument given all others; an argument of 0 keeps the bit. The
    objective never falls, and where the sweeps end before their number is up, no single flip improves it.
    It is a local method. A sweep costs O(n b^2), n being the codes that the one before moved, all N at first.

    Source: SDH (Shen et al., CVPR 2015) section 3.1; KALAHash (AAAI 2025) eq. 12, as it follows from eq. 11.

    Args:
        codes: where to start (N, b), entries -1 or +1. Left as it is.
        linear: (N, b).
        gram: symmetric (b, b); its diagonal does not matter.
        sweeps: passes over all bits at most; fewer where one flips nothing.

    Returns:
        The new codes (N, b).

    Raises:
        ValueError: shapes that do not fit together.
    """
    num, bits = codes.shape
    if linear.shape != (num, bits) or gram.shape != (bits, bits):
        raise ValueError(
            f"codes {tuple(codes.shape)} need linear of the same shape and gram ({bits}, {bits}), "
            f"not {tuple(linear.shape)} and {tuple(gram.shape)}"
        )
    # (b, N), so that a bit of all codes lies in one piece; a copy even where the transpose is contiguous already
    rows = codes.to(linear.dtype).T.clone(memory_format=torch.contiguous_format)
    found, linear, coupling = rows.clone(), linear.T.contiguous(), -gram.clone().fill_diagonal_(0)
    left = torch.arange(num, device=rows.device)
    keep = torch.finfo(rows.dtype).tiny  # decides where the argument is 0, and nowhere else
    for _ in range(sweeps):
        before = rows.clone()
        for row, linear_of_bit, coupling_of_bit in zip(rows, linear, coupling, strict=True):
            argument = torch.addmv(linear_of_bit, rows.T, coupling_of_bit)  # (n,)
            torch.sign(argument.add_(row, alpha=keep), out=row)
        found[:, left] = rows
        moved = (rows != before).any(dim=0)  # a code that did not move never will: codes do not depend on each other
        if not moved.any():
            break
        left, rows, linear = left[moved], rows[:, moved], linear[:, moved]
    return found.T.contiguous().to(codes.dtype)  # (N, b)
