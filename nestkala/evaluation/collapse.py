"""Collapsed codes: bits that repeat others, bits that never change, many images with the same code."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..codes import prefix, unpack

FEWEST = 32
"""Minimum number of codes; with fewer, bits are equal by chance."""
_MOST = 100_000
"""Number of codes whose bits are compared, evenly spaced."""
_OFTEN = 0.5
_NAMED = 5


@dataclass(frozen=True)
class Collapse:
    """Signs of collapse in a set of codes.

    Attributes:
        size: number of codes.
        bits: length of the codes.
        constant: bits, from 0, that are the same in all codes.
        repeated: {bit: the first bit that it equals, or inverts, in all codes}, excluding constant bits.
        distinct: number of different codes. An image finds itself first in `distinct` / `size` of cases if equal
            codes are in random order.
    """

    size: int
    bits: int
    constant: list[int]
    repeated: dict[int, int]
    distinct: int

    @classmethod
    def of(cls, codes: NDArray[np.uint8], bits: int) -> Self:
        """Examine the first `bits` bits of packed codes, uint8 (N, bytes)."""
        short = np.ascontiguousarray(prefix(codes, bits))  # (N, ceil(bits / 8))
        distinct = len(np.unique(short.view(f"V{short.shape[1]}"))) if len(short) else 0
        if len(short) < FEWEST:
            return cls(len(short), bits, [], {}, distinct)
        sample = short[np.linspace(0, len(short) - 1, min(len(short), _MOST)).astype(int)]
        signs = unpack(sample, bits)  # (n, bits)
        patterns = [row.tobytes() for row in np.packbits(signs != signs[0], axis=0).T]
        silent = bytes(len(patterns[0]))
        first: dict[bytes, int] = {}
        repeated = {
            bit: before
            for bit, pattern in enumerate(patterns)
            if (before := first.setdefault(pattern, bit)) != bit and pattern != silent
        }
        return cls(
            len(short), bits, [bit for bit, pattern in enumerate(patterns) if pattern == silent], repeated, distinct
        )

    @property
    def found_first(self) -> float:
        """How often an image finds itself first, in [0, 1]; 1 if there are no images."""
        return self.distinct / self.size if self.size else 1.0

    def warnings(self) -> list[str]:
        """One line per problem; empty if the codes are fine.

        Shared codes are reported if there are enough codes for all images, but less than half find themselves first.
        """
        lines = []
        if self.constant:
            numbers = ", ".join(map(str, self.constant))
            lines.append(
                f"warning: {len(self.constant)} of {self.bits} bits are the same in all codes (numbers {numbers})"
            )
        if self.repeated:
            named = [f"{bit} = {before}" for bit, before in list(self.repeated.items())[:_NAMED]]
            more = ", ..." if len(self.repeated) > _NAMED else ""
            lines.append(
                f"warning: {len(self.repeated)} of {self.bits} bits repeat or invert another in all codes "
                f"({', '.join(named)}{more})"
            )
        if self.size >= FEWEST and self.size <= 2 ** min(self.bits, 62) and self.found_first < _OFTEN:
            lines.append(
                f"warning: {self.size:,} images have only {self.distinct:,} different codes of {self.bits} bits: an "
                f"image finds itself first in {self.found_first:.2f} of cases"
            )
        return lines
