"""Packed codes as machine words, for what compares many of them."""

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Words = NDArray[np.unsignedinteger]


def ordered_words(packed: NDArray[np.uint8]) -> Words:
    """Packed codes (N, bytes) as big-endian words (N, W), whose order as numbers is that of the codes.

    One word of 8, 16, 32 or 64 bits where that is enough, else as many of 64 as it takes; spare bits are the last.
    """
    num_bytes = packed.shape[1]
    size = next((size for size in (1, 2, 4, 8) if num_bytes <= size), 8)
    padded = np.zeros((len(packed), num_bytes + -num_bytes % size), np.uint8)
    padded[:, :num_bytes] = packed
    return padded.view(f">u{size}").astype(f"u{size}")


def packed_bytes(words: Words, num_bytes: int) -> NDArray[np.uint8]:
    """The packed codes (N, num_bytes) that `ordered_words` took."""
    as_bytes = words.astype(words.dtype.newbyteorder(">")).view(np.uint8)
    return np.ascontiguousarray(as_bytes[:, :num_bytes])


@compiled
def popcount(x: np.uint64) -> np.int32:
    """Bits set in a uint64, by parallel sums (Warren, Hacker's Delight, 5-1): numba has no popcount."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int32((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
