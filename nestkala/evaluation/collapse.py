"""Codes that say less than they have bits: bits that repeat others, bits that never change, many images of one code."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..codes import prefix, unpack

FEWEST = 32
"""Codes; of fewer, bits are alike by chance."""
_MOST = 100_000
"""Codes whose bits are compared, evenly spaced among all."""
_OFTEN = 0.5
_NAMED = 5


@dataclass(frozen=True)
class Collapse:
    """What codes lack.

    Attributes:
        size: number of codes.
        bits: their length.
        constant: bits, from 0, that are the same in all codes.
        repeated: {bit: the first bit that it repeats, or reverses, in all codes}, but for constant ones.
        distinct: number of different codes. An image finds itself first among all in `distinct` / `size` of cases,
            where those of equal codes come in random order.
    """

    size: int
    bits: int
    constant: list[int]
    repeated: dict[int, int]
    distinct: int

    @classmethod
    def of(cls, codes: NDArray[np.uint8], bits: int) -> Self:
        """Look at packed codes, uint8 (N, bytes), of which the first `bits` count."""
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
        """How often an image finds itself first, in [0, 1]; 1 of no images."""
        return self.distinct / self.size if self.size else 1.0

    def warnings(self) -> list[str]:
        """A line for each thing that is lacking; none where codes are as they should be.

        That images share codes is told where there are enough codes for all, and less than half find themselves.
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
                f"warning: {len(self.repeated)} of {self.bits} bits repeat or reverse another in all codes "
                f"({', '.join(named)}{more})"
            )
        if self.size >= FEWEST and self.size <= 2 ** min(self.bits, 62) and self.found_first < _OFTEN:
            lines.append(
                f"warning: {self.size:,} images have only {self.distinct:,} different codes of {self.bits} bits: an "
                f"image finds itself first in {self.found_first:.2f} of cases"
            )
        return lines
