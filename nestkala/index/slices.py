"""Search sorted codes: those that share a prefix form a slice and share one distance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled, in_threads
from ..utils.packed_words import Words, popcount

Positions = NDArray[np.int64]
Distances = NDArray[np.int32]
Ranking = NDArray[Any]

_WORTH_A_THREAD = 2**18  # prefixes or candidates to compare


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


def nearest(
    prefixes: NDArray[np.uint64], starts: NDArray[np.int64], queries: NDArray[np.uint64], bits: int, k: int
) -> tuple[Positions, Distances]:
    """The k nearest of the sorted codes to each query, by distance, then by position: (Q, k) each; k at most N.

    Prefixes (U, W) and queries (Q, W) of `bits` bits, starts (U + 1,) as in `Slices`.
    """
    positions = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k), np.int32)
    _in_threads(_nearest, len(prefixes) + k, prefixes.reshape(-1), starts, queries, bits, positions, distances)
    return positions, distances


def count_within(
    prefixes: NDArray[np.uint64], starts: NDArray[np.int64], queries: NDArray[np.uint64], bits: int, radius: int
) -> Positions:
    """How many of the sorted codes are within the radius of each query, (Q,)."""
    found = np.empty(len(queries), np.int64)
    _in_threads(_count_within, len(prefixes), prefixes.reshape(-1), starts, queries, bits, radius, found)
    return found


def distances_to(words: Words, queries: NDArray[np.uint64], candidates: Positions) -> Distances:
    """Distances of each query (Q, W) to its own candidates (Q, m), which are positions in the codes (N, W)."""
    found = np.empty(candidates.shape, np.int32)
    _in_threads(_distances_to, candidates.shape[1], words, queries, candidates, found)
    return found


def soft_distances_to(
    words: Words,
    width: int,
    queries: NDArray[np.uint64],
    candidates: Positions,
    costs: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Like `distances_to`, but a differing bit costs `costs` (Q, bits) instead of 1.

    Each word has `width` bits.
    """
    found = np.empty(candidates.shape, np.float32)
    steps = candidates.shape[1] * costs.shape[1]
    _in_threads(_soft_distances_to, steps, words, width, queries, candidates, costs, found)
    return found


def _in_threads(kernel: Callable[..., None], cost: int, *given: Any) -> None:
    """Call a kernel for all queries, the last argument's rows; `cost` is the number of steps per query."""
    at_least = 1 + _WORTH_A_THREAD // max(1, cost)
    in_threads(lambda first, last: kernel(first, last, *given), len(given[-1]), at_least=at_least)


@compiled
def _nearest(
    first: int,
    last: int,
    flat: NDArray[np.uint64],
    starts: NDArray[np.int64],
    queries: NDArray[np.uint64],
    bits: int,
    positions: Positions,
    distances: Distances,
) -> None:
    num, k = len(starts) - 1, positions.shape[1]
    distance, places = np.empty(num, np.uint16), np.empty(bits + 2, np.int64)
    for q in range(first, last):
        _measure(flat, starts, queries[q], distance, places)
        for u in range(num):
            d = distance[u]
            place = places[d]
            for position in range(starts[u], min(starts[u + 1], starts[u] + k - place)):
                positions[q, place] = position
                distances[q, place] = d
                place += 1
            places[d] = place


@compiled
def _count_within(
    first: int,
    last: int,
    flat: NDArray[np.uint64],
    starts: NDArray[np.int64],
    queries: NDArray[np.uint64],
    bits: int,
    radius: int,
    found: Positions,
) -> None:
    distance, places = np.empty(len(starts) - 1, np.uint16), np.empty(bits + 2, np.int64)
    for q in range(first, last):
        _measure(flat, starts, queries[q], distance, places)
        found[q] = places[radius + 1]


@compiled
def _measure(
    flat: NDArray[np.uint64],
    starts: NDArray[np.int64],
    query: NDArray[np.uint64],
    distance: NDArray[np.uint16],
    places: NDArray[np.int64],
) -> None:
    """Write the distance of each prefix, (U,), and how many codes are closer than each distance, (bits + 2,)."""
    for d in range(len(places)):
        places[d] = 0
    if len(query) == 1:  # a separate loop, so that the compiler can vectorize it
        asked = query[0]
        for u in range(len(distance)):
            distance[u] = popcount(flat[u] ^ asked)
    else:
        for u in range(len(distance)):
            total = np.int64(0)
            for w in range(len(query)):
                total += popcount(flat[u * len(query) + w] ^ query[w])
            distance[u] = total
    for u in range(len(distance)):
        places[distance[u] + 1] += starts[u + 1] - starts[u]
    for d in range(1, len(places)):
        places[d] += places[d - 1]


@compiled
def _distances_to(
    first: int, last: int, words: Words, queries: NDArray[np.uint64], candidates: Positions, found: Distances
) -> None:
    for q in range(first, last):
        for c in range(candidates.shape[1]):
            d = np.int64(0)
            for w in range(queries.shape[1]):
                d += popcount(np.uint64(words[candidates[q, c], w]) ^ queries[q, w])
            found[q, c] = d


@compiled
def _soft_distances_to(
    first: int,
    last: int,
    words: Words,
    width: int,
    queries: NDArray[np.uint64],
    candidates: Positions,
    costs: NDArray[np.float32],
    found: NDArray[np.float32],
) -> None:
    for q in range(first, last):
        for c in range(candidates.shape[1]):
            total = np.float32(0)
            for i in range(costs.shape[1]):
                w = i // width
                shift = np.uint64(width - 1 - i % width)
                differs = np.uint64(words[candidates[q, c], w]) ^ queries[q, w]
                if (differs >> shift) & np.uint64(1):
                    total += costs[q, i]
            found[q, c] = total


@compiled
def shared_prefixes(words: NDArray[np.uint64], width: int) -> Positions:
    """How many adjacent pairs of the sorted codes (N, W) share exactly 0, 1, ... leading bits, (64 W + 1,).

    Each word has `width` bits.
    """
    found = np.empty(width * words.shape[1] + 1, np.int64)
    for shared in range(len(found)):
        found[shared] = 0
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
