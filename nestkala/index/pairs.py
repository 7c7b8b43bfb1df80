"""All pairs of codes within a distance of each other, without comparing every pair."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..codes import check_packed
from ..utils.compiled import compiled
from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number
from ..utils.packed_words import ordered_words, popcount


def groups_within(codes: NDArray[np.uint8], radius: int) -> NDArray[np.int64]:
    """The group of each code, int64 (N,): two codes share a group if a chain of steps within the radius connects them.

    Exact. Codes within distance r agree in at least one of r + 1 parts (the pigeonhole principle), so only codes that
    agree in a part are compared. Each part takes every (r + 1)-th bit, since neighboring bits are correlated. As long
    as parts have more than log2(N) bits, the time is proportional to N.

    Source: Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing" (CVPR 2012), with radius 0 in each
    part.

    Args:
        codes: packed codes, uint8 (N, bytes).
        radius: how many bits a pair may differ in, from 0 to less than the number of bits.

    Returns:
        The lowest position of a member of the group.

    Raises:
        NestKALAError: the codes are not packed codes, or the radius is out of range.
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
    """For each part, the positions of codes ordered so that equal parts are adjacent, and where each bucket starts."""
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
    """Join the trees of all codes that share a bucket and are within the radius of each other."""
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
        parents[place] = parents[parents[place]]  # path halving
        place = parents[place]
    return place


@compiled
def _roots(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.empty(len(parents), np.int64)
    for place in range(len(parents)):
        found[place] = _root(parents, place)
    return found
