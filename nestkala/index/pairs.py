"""All pairs of codes within a distance of one another, without comparing every two."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..codes import check_packed
from ..utils.compiled import compiled
from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number
from ..utils.packed_words import ordered_words, popcount


def groups_within(codes: NDArray[np.uint8], radius: int) -> NDArray[np.int64]:
    """The group of each code, int64 (N,): two are in one if a chain leads from one to the other in steps of the radius.

    Exact. Codes within a distance of r agree in one at least of r + 1 parts (the pigeonhole principle), so that only
    those are compared that agree in a part. A part takes every (r + 1)-th bit, since neighbors depend on one another.
    While parts have more bits than there are doublings of the collection, that takes time in proportion to it.

    Source: Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing" (CVPR 2012), at radius 0 in each
    part.

    Args:
        codes: packed, uint8 (N, bytes).
        radius: bits in which two may differ, 0 to fewer than there are bits.

    Returns:
        The lowest place of a member of the group.

    Raises:
        NestKALAError: no packed codes, or a radius out of its range.
    """
    check_packed(codes)
    if not is_whole_number(radius, 0, 8 * codes.shape[1] - 1):
        raise NestKALAError(f"the distance must be 0 to {8 * codes.shape[1] - 1} bits, not {radius!r}")
    distinct, first, which = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    words = ordered_words(distinct).astype(np.uint64)
    parents = np.arange(len(distinct))
    if radius:
        for order, starts in _buckets(distinct, radius + 1):
            _join_near(words, order, starts, radius, parents)
    roots = _roots(parents)
    lowest = np.full(len(distinct), len(codes))
    np.minimum.at(lowest, roots, first)
    found: NDArray[np.int64] = lowest[roots[which]]
    return found


def _buckets(codes: NDArray[np.uint8], parts: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each part, the places of codes in an order that puts equal parts side by side, and where each such begins."""
    bits = np.unpackbits(codes, axis=1)
    for part in range(parts):
        keys = np.packbits(bits[:, part::parts], axis=1)
        order = np.lexsort(keys.T)
        keys = keys[order]
        differs = (keys[1:] != keys[:-1]).any(axis=1)
        yield order, np.concatenate([[0], np.flatnonzero(differs) + 1, [len(codes)]])


@compiled
def _join_near(
    words: NDArray[np.uint64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    radius: int,
    parents: NDArray[np.int64],
) -> None:
    """Join the trees of all that are in one bucket and within the radius of each other."""
    for bucket in range(len(starts) - 1):
        for i in range(starts[bucket], starts[bucket + 1]):
            for j in range(i + 1, starts[bucket + 1]):
                a, b = order[i], order[j]
                d = 0
                for w in range(words.shape[1]):
                    d += int(popcount(words[a, w] ^ words[b, w]))
                if d <= radius:
                    a, b = _root(parents, a), _root(parents, b)
                    parents[max(a, b)] = min(a, b)


@compiled
def _root(parents: NDArray[np.int64], place: int) -> int:
    while parents[place] != place:
        parents[place] = parents[parents[place]]  # halves the way for who comes next
        place = parents[place]
    return place


@compiled
def _roots(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.empty(len(parents), np.int64)
    for place in range(len(parents)):
        found[place] = _root(parents, place)
    return found
