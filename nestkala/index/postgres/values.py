"""Conversion of values to and from PostgreSQL."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def is_text(name: str) -> bool:
    """Whether the type `text` can hold this string: UTF-8 without NUL."""
    try:
        return b"\0" not in name.encode()
    except UnicodeEncodeError:
        return False


def bit_strings(codes: NDArray[np.uint8], bits: int) -> Iterator[str]:
    """The first bits of packed codes (N, bytes) as PostgreSQL bit strings: 0110..."""
    letters = (np.unpackbits(codes, axis=1, count=bits) + ord("0")).tobytes().decode()
    return (letters[start : start + bits] for start in range(0, len(letters), bits))


def packed(sent: Iterable[bytes]) -> NDArray[np.uint8]:
    """Packed codes (N, bytes) from `bit_send` output: the number of bits in four bytes, then the code."""
    return np.stack([np.frombuffer(one, np.uint8, offset=4) for one in sent])
