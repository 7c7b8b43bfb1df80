"""Search sorted codes: those that share a prefix form a slice and share one distance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled, compiled_parallel, prange
from ..utils.packed_words import Words, popcount

Positions = NDArray[np.int64]
Distances = NDArray[np.int32]
Ranking = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Slices:
    """The distinct prefixes of sorted codes at one length.

    Attributes:
        bits: prefix length.
        prefixes: prefixes in ascending order, uint64 (U, W).
        starts: codes starts[u] up to starts[u + 1] have prefix u, int64 (U + 1,).
    """

    bits: int
    prefixes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, words: Words, bits: int) -> "Slices":
        """The slices of sorted codes (N, W) from `ordered_words`."""
        prefixes = prefix_words(words, bits)
        differs = (prefixes[1:] != prefixes[:-1]).any(axis=1)
        starts = np.flatnonzero(np.concatenate([[True], differs])) if len(words) else np.empty(0, np.int64)
        return cls(bits, prefixes[starts].astype(np.uint64), np.append(starts, len(words)))


def prefix_words(words: Words, bits: int) -> Words:
    """The first `bits` bits of codes (N, W) as words (N, ceil(bits / 64)), unused bits 0."""
    width = 8 * words.dtype.itemsize
    kept = words[:, : -(-bits // width)].copy()
    kept[:, -1] >>= -bits % width
    return kept


def best(near: Positions, ranking: Ranking, k: int) -> tuple[Positions, Ranking]:
    """The first k of candidates (Q, m) by ranking; the sort is stable."""
    order = np.argsort(ranking, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(ranking, order, axis=1)


@compiled_parallel
def nearest(
    prefixes: NDArray[np.uint64], starts: NDArray[np.int64], queries: NDArray[np.uint64], bits: int, k: int
) -> tuple[Positions, Distances]:
    """The k nearest of the sorted codes to each query, by distance, then by position: (Q, k) each; k at most N.

    Prefixes (U, W) and queries (Q, W) of `bits` bits, starts (U + 1,) as in `Slices`.
    """
    positions = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.int32)
    for q in prange(len(queries)):
        distance, places = _distances(prefixes, starts, queries[q], bits)
        for u in range(len(prefixes)):
            d = distance[u]
            place = places[d]
            for position in range(starts[u], min(starts[u + 1], starts[u] + k - place)):
                positions[q, place] = position
                distances[q, place] = d
                place += 1
            places[d] = place
    return positions, distances


@compiled_parallel
def count_within(
    prefixes: NDArray[np.uint64], starts: NDArray[np.int64], queries: NDArray[np.uint64], bits: int, radius: int
) -> Positions:
    """How many of the sorted codes are within the radius of each query, (Q,)."""
    found = np.empty(len(queries), np.int64)
    for q in prange(len(queries)):
        _, places = _distances(prefixes, starts, queries[q], bits)
        found[q] = places[radius + 1]
    return found


@compiled
def _distances(
    prefixes: NDArray[np.uint64], starts: NDArray[np.int64], query: NDArray[np.uint64], bits: int
) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """The distance of each prefix, (U,), and how many codes are closer than each distance, (bits + 2,)."""
    distance = np.empty(len(prefixes), np.uint16)
    counts = np.zeros(bits + 2, np.int64)
    if len(query) == 1:  # a separate loop, so that the compiler can vectorize it
        for u in range(len(prefixes)):
            distance[u] = popcount(prefixes[u, 0] ^ query[0])
    else:
        for u in range(len(prefixes)):
            d = 0
            for w in range(len(query)):
                d += int(popcount(prefixes[u, w] ^ query[w]))
            distance[u] = d
    for u in range(len(prefixes)):
        counts[distance[u] + 1] += starts[u + 1] - starts[u]
    return distance, counts.cumsum()


@compiled_parallel
def distances_to(words: NDArray[np.uint64], queries: NDArray[np.uint64], candidates: Positions) -> Distances:
    """Distances of each query (Q, W) to its own candidates (Q, m), which are positions in the codes (N, W)."""
    found = np.empty(candidates.shape, np.int32)
    for q in prange(len(queries)):
        for c in range(candidates.shape[1]):
            d = 0
            for w in range(queries.shape[1]):
                d += int(popcount(np.uint64(words[candidates[q, c], w]) ^ queries[q, w]))
            found[q, c] = d
    return found


@compiled_parallel
def soft_distances_to(
    words: NDArray[np.uint64],
    width: int,
    queries: NDArray[np.uint64],
    candidates: Positions,
    costs: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Like `distances_to`, but a differing bit costs `costs` (Q, bits) instead of 1.

    Each word has `width` bits.
    """
    found = np.empty(candidates.shape, np.float32)
    bits = costs.shape[1]
    for q in prange(len(queries)):
        for c in range(candidates.shape[1]):
            total = np.float32(0)
            for i in range(bits):
                w = i // width
                shift = np.uint64(width - 1 - i % width)
                differs = np.uint64(words[candidates[q, c], w]) ^ queries[q, w]
                if (differs >> shift) & np.uint64(1):
                    total += costs[q, i]
            found[q, c] = total
    return found


@compiled
def shared_prefixes(words: NDArray[np.uint64], width: int) -> Positions:
    """How many adjacent pairs of the sorted codes (N, W) share exactly 0, 1, ... leading bits, (64 W + 1,).

    Each word has `width` bits.
    """
    found = np.zeros(width * words.shape[1] + 1, np.int64)
    for n in range(1, len(words)):
        shared = 0
        for w in range(words.shape[1]):
            differs = np.uint64(words[n, w]) ^ np.uint64(words[n - 1, w])
            if differs:
                highest = width - 1
                while not (differs >> np.uint64(highest)) & np.uint64(1):
                    highest -= 1
                shared += width - 1 - highest
                break
            shared += width
        found[shared] += 1
    return found
