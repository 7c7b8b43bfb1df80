"""Packed binary codes: one bit per sign, first bit first, so that a prefix of a code is again a code."""

import numpy as np
import torch
from numpy.typing import NDArray

from .utils.errors import NestKALAError
from .utils.limits import is_whole_number


def check_packed(codes: NDArray[np.uint8], name: str = "codes") -> None:
    """Raise NestKALAError unless `codes` is a numpy array of packed codes: uint8, (N, bytes), bytes >= 1."""
    if not isinstance(codes, np.ndarray) or codes.dtype != np.uint8:
        found = codes.dtype if isinstance(codes, np.ndarray) else type(codes).__name__
        raise NestKALAError(f"{name}: got {found}, need a numpy array of uint8 as `pack` returns it")
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise NestKALAError(f"{name}: got shape {codes.shape}, need (N, bytes) with at least one byte")


def _checked_bits(bits: int, codes: NDArray[np.uint8]) -> int:
    available = 8 * codes.shape[1]
    if not is_whole_number(bits, 1, available):
        raise NestKALAError(f"bits: got {bits}, need an integer from 1 to {available}, the bits in the codes")
    return int(bits)


def pack(h: NDArray[np.floating | np.signedinteger] | torch.Tensor) -> NDArray[np.uint8]:
    """Pack the signs of relaxed or discrete codes, eight to a byte, in the order of `numpy.packbits`.

    Args:
        h: real codes, (N, L), L >= 1; a value >= 0 becomes bit 1, a negative one bit 0.

    Returns:
        uint8 (N, ceil(L / 8)), C-contiguous; the spare bits of the last byte are zero.

    Raises:
        NestKALAError: `h` is not a signed real (N, L) array or tensor, or holds NaN or infinity. Boolean
            and unsigned input is refused, because all of it is >= 0: it is {0, 1} bits or packed already.
    """
    if isinstance(h, torch.Tensor):
        h = h.detach().cpu()
        # numpy has no bfloat16; widening is exact and keeps every sign.
        h = (h.double() if h.is_floating_point() else h).numpy()
    if not isinstance(h, np.ndarray) or h.dtype.kind not in "fi":
        found = h.dtype if isinstance(h, np.ndarray) else type(h).__name__
        raise NestKALAError(f"codes to pack: got {found}, need an array or tensor of floats or signed ints")
    if h.ndim != 2 or h.shape[1] == 0:
        raise NestKALAError(f"codes to pack: got shape {h.shape}, need (N, L) with at least one bit")
    finite = np.isfinite(h)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise NestKALAError(f"codes to pack: got {h[row, column]} at ({row}, {column}), need finite values")
    # A column-major input would give column-major codes, whose bytes a file or an index would misread.
    return np.packbits(np.ascontiguousarray(h >= 0), axis=1)


def unpack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """The first `bits` bits of packed codes (N, bytes) as int8 (N, bits) in {-1, +1}.

    Raises:
        NestKALAError: `codes` are not packed codes, or `bits` is not in 1..8 * bytes.
    """
    check_packed(codes)
    bits = _checked_bits(bits, codes)
    return np.unpackbits(codes, axis=1, count=bits).astype(np.int8) * np.int8(2) - np.int8(1)


def prefix(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The first `bits` bits of packed codes (N, bytes) as a C-contiguous copy, uint8 (N, ceil(bits / 8)).

    Raises:
        NestKALAError: `codes` are not packed codes, or `bits` is not in 1..8 * bytes.
    """
    check_packed(codes)
    bits = _checked_bits(bits, codes)
    num_bytes = -(-bits // 8)
    shortened = np.array(codes[:, :num_bytes], order="C")
    shortened[:, -1] &= 0xFF << (8 * num_bytes - bits) & 0xFF
    return shortened


def columns(codes: NDArray[np.uint8], where: slice) -> NDArray[np.uint8]:
    """The bits `where.start` to below `where.stop` of packed codes (N, bytes), packed, uint8 (N, ceil(bits / 8)).

    Raises:
        NestKALAError: `codes` are not packed codes, or have fewer bits.
    """
    if not where.start:
        return prefix(codes, where.stop)
    return pack(unpack(codes, where.stop)[:, where])


def hamming(queries: NDArray[np.uint8], gallery: NDArray[np.uint8], bits: int | None = None) -> NDArray[np.int32]:
    """Hamming distances between packed codes, over their first `bits` bits or, by default, all of them.

    Args:
        queries: packed codes, uint8 (Q, bytes).
        gallery: packed codes, uint8 (G, bytes).
        bits: length of the prefix compared, 1..8 * bytes.

    Returns:
        int32 (Q, G), values 0..bits.

    Raises:
        NestKALAError: either is not packed codes, they differ in bytes, or `bits` is out of range.
    """
    check_packed(queries, "queries")
    check_packed(gallery, "gallery")
    if queries.shape[1] != gallery.shape[1]:
        raise NestKALAError(
            f"queries have {queries.shape[1]} bytes and the gallery {gallery.shape[1]}, need equally many"
        )
    if bits is not None:
        queries, gallery = prefix(queries, bits), prefix(gallery, bits)
    distances = np.zeros((len(queries), len(gallery)), np.int32)  # (Q, G)
    # Byte by byte, so that no (Q, G, bytes) array is built.
    for query_byte, gallery_byte in zip(queries.T, gallery.T, strict=True):
        distances += np.bitwise_count(query_byte[:, None] ^ gallery_byte)
    return distances
