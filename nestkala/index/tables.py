"""Exact search without a scan: multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012) of sorted codes.

The first 64 bits of a code are up to four substrings of 16 bits. The sorted codes themselves are the table of the first
substring; the other tables hold positions, ordered by substring, then by position. A query visits the codes whose
substrings differ from its own in 0, 1, ... bits. Once it has visited all codes that differ in fewer than done_t bits of
substring t, an unseen code differs in at least sum_t done_t bits; it stops when that exceeds the k-th distance.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled, compiled_parallel, prange
from ..utils.packed_words import Words, popcount, prefetch
from .scan import prefix_masks
from .slices import Distances, Positions

BITS = 16
"""Bits in a substring."""
MOST_TABLES = 4
MOST_CODES = 2**32
"""Positions are stored in 32 bits."""

_BLOCK = 256
_AHEAD, _AHEAD_AT = 16, 4
"""Substrings whose codes are prefetched together, for adjacent and for scattered codes."""
_SHIFT = 40
"""A key is distance << 40 | position, so that keys sort like results."""
_MANY_QUERIES = 8

# Measured costs, in units of the time a scan takes per code: 0.3 ns.
_CODE = np.array([4, 18, 18, 18])
"""Cost of visiting a code in each table: in the first they are adjacent, in the others scattered."""
_BUCKET = np.array([120, 250, 250, 250])
"""Cost of finding the codes of one substring."""


@dataclass(frozen=True, eq=False)
class Tables:
    """The codes that contain each substring.

    Attributes:
        positions: positions of the codes, sorted by each substring except the first, uint32 (T - 1, N).
        starts: where the codes with each value of a substring start, uint32 (T, 2^16 + 1).
    """

    positions: NDArray[np.uint32]
    starts: NDArray[np.uint32]

    @classmethod
    def of(cls, words: Words, num_tables: int) -> "Tables":
        """The first tables of sorted codes (N, W) from `ordered_words`; N must be less than `MOST_CODES`."""
        positions = np.empty((num_tables - 1, len(words)), np.uint32)
        starts = np.empty((num_tables, 2**BITS + 1), np.uint32)
        _build(words, 64 - 8 * words.dtype.itemsize, positions, starts)
        return cls(positions, starts)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.positions.nbytes + self.starts.nbytes

    def search(
        self, words: Words, queries: Words, bits: int, k: int, *, radius: int | None = None, patient: bool = False
    ) -> tuple[Positions, Distances, NDArray[np.bool_]]:
        """The k nearest codes to each query by their first `bits` bits, by distance, then by position.

        Args:
            words: the codes (N, W) that the tables belong to.
            queries: queries (Q, W), with all bits after the first `bits` set to 0.
            bits: prefix length to compare.
            k: how many results to return, at most N.
            radius: return only codes within this distance.
            patient: continue even if a scan would be faster.

        Returns:
            Positions and distances, (Q, k) each, where distances above `bits` or `radius` mark unused entries; and
            whether each query was answered, (Q,). The results of unanswered queries are meaningless.
        """
        masks = prefix_masks(words, bits)
        num_tables = min(len(self.starts), -(-bits // BITS))
        last_bits = min(BITS, bits - BITS * (num_tables - 1))
        limit = (bits if radius is None else min(radius, bits)) + 1
        keys = np.full((len(queries), k), limit << _SHIFT, np.int64)
        answered = np.empty(len(queries), np.bool_)
        asked, starts = queries[:, : len(masks)].astype(np.uint64), self.starts[:num_tables]
        plan = (masks, *_balls(BITS), *_balls(last_bits), np.inf if patient else float(len(words)))
        if len(queries) >= _MANY_QUERIES:
            _many(words, self.positions, starts, asked, *plan, keys, answered)
        else:
            for q in range(len(queries)):
                answered[q] = _search(words, self.positions, starts, asked[q], *plan, keys[q])
        return keys & ((1 << _SHIFT) - 1), (keys >> _SHIFT).astype(np.int32), answered


def num_tables_of(bits: int) -> int:
    """Number of tables for codes of this length: one per complete substring."""
    return max(1, min(MOST_TABLES, bits // BITS))


@cache
def _balls(bits: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """All words of this many bits ordered by popcount, (2^bits,), and where each popcount starts, (bits + 2,)."""
    flips = np.arange(2**bits, dtype=np.uint32)
    weights = np.bitwise_count(flips)
    bounds = np.concatenate([[0], np.bincount(weights, minlength=bits + 1).cumsum()])
    return flips[np.argsort(weights, kind="stable")], bounds.astype(np.int64)


@compiled
def _build(words: Words, spare: int, positions: NDArray[np.uint32], starts: NDArray[np.uint32]) -> None:
    """Counting-sort the positions by each substring."""
    for table in range(len(starts)):
        shift = np.uint64(64 - BITS * (table + 1))
        ends = np.zeros(2**BITS + 1, np.int64)
        for n in range(len(words)):
            substring = ((np.uint64(words[n, 0]) << np.uint64(spare)) >> shift) & np.uint64(2**BITS - 1)
            ends[substring + np.uint64(1)] += 1
        for value in range(2**BITS):
            ends[value + 1] += ends[value]
        for value in range(2**BITS + 1):
            starts[table, value] = ends[value]
        if table:
            for n in range(len(words)):
                substring = ((np.uint64(words[n, 0]) << np.uint64(spare)) >> shift) & np.uint64(2**BITS - 1)
                positions[table - 1, ends[substring]] = n
                ends[substring] += 1


@compiled_parallel
def _many(
    words: Words,
    positions: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    queries: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    flips: NDArray[np.uint32],
    bounds: NDArray[np.int64],
    last_flips: NDArray[np.uint32],
    last_bounds: NDArray[np.int64],
    patience: float,
    keys: NDArray[np.int64],
    answered: NDArray[np.bool_],
) -> None:
    """Fill `keys` (Q, k) and `answered` (Q,), with queries divided among threads."""
    for q in prange(len(queries)):
        answered[q] = _search(
            words, positions, starts, queries[q], masks, flips, bounds, last_flips, last_bounds, patience, keys[q]
        )


@compiled
def _search(
    words: Words,
    positions: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    flips: NDArray[np.uint32],
    bounds: NDArray[np.int64],
    last_flips: NDArray[np.uint32],
    last_bounds: NDArray[np.int64],
    patience: float,
    heap: NDArray[np.int64],
) -> bool:
    """Replace `heap` with the smallest keys, ascending; return False if a scan would be faster."""
    last = len(starts) - 1
    asked = query[0] << np.uint64(64 - 8 * words.itemsize)
    done, costs, counted = np.zeros(last + 1, np.int64), np.zeros(last + 1), np.zeros(last + 1, np.bool_)
    spent = 0.0
    while True:
        missing = (heap[0] >> _SHIFT) + 1 - done.sum()
        if missing <= 0:
            break
        table = int(np.argmin(costs))
        radius = done[table]
        its_flips, its_bounds = (last_flips, last_bounds) if table == last else (flips, bounds)
        bits = len(its_bounds) - 2
        own, low_bits = _substring(asked, table, bits)
        ball = its_flips[its_bounds[radius] : its_bounds[radius + 1]]
        if not counted[table]:
            costs[table], counted[table] = _cost(starts[table], own, low_bits, ball, table), True
            continue
        if spent + costs[table] > patience / 64 and spent + _planned(costs, done, missing) > patience:
            return False
        if table == 0:
            _look_along(words, starts[0], own, low_bits, ball, query, masks, done, heap)
        else:
            _look_at(words, positions[table - 1], starts[table], own, low_bits, ball, query, masks, done, heap)
        spent += costs[table]
        done[table] += 1
        if radius == bits:  # all codes have been visited
            break
        costs[table], counted[table] = costs[table] * (bits - radius) / (radius + 1), False
    heap.sort()
    return True


@compiled
def _substring(query: np.uint64, table: int, bits: int) -> tuple[np.uint64, np.uint64]:
    """The first bits of a query's substring, and how many other bits it has."""
    low_bits = np.uint64(BITS - bits)
    return ((query >> np.uint64(64 - BITS * (table + 1))) & np.uint64(2**BITS - 1)) >> low_bits, low_bits


@compiled
def _cost(
    starts: NDArray[np.uint32], own: np.uint64, low_bits: np.uint64, ball: NDArray[np.uint32], table: int
) -> float:
    """Cost of visiting the codes whose substring is the query's `own` with the bits of one of `ball` flipped."""
    codes = 0
    for i in range(len(ball)):
        low, high = _bounds(starts, own, low_bits, ball[i])
        codes += int(high - low)
    return float(_CODE[table] * codes + _BUCKET[table] * len(ball))


@compiled
def _planned(costs: NDArray[np.float64], done: NDArray[np.int64], missing: int) -> float:
    """Estimated cost of this many more radii, cheapest first, if codes are spread evenly."""
    costs, radii = costs.copy(), done.copy()
    total = 0.0
    for _ in range(missing):
        table = int(np.argmin(costs))
        total += costs[table]
        costs[table] *= max(0.0, (BITS - radii[table]) / (radii[table] + 1))
        radii[table] += 1
    return total


@compiled
def _look_along(
    words: Words,
    starts: NDArray[np.uint32],
    own: np.uint64,
    low_bits: np.uint64,
    ball: NDArray[np.uint32],
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    done: NDArray[np.int64],
    heap: NDArray[np.int64],
) -> None:
    """Offer the codes whose first substring is the query's `own` with the bits of one of `ball` flipped.

    A block at a time, and only if its minimum is small enough.
    """
    flat, asked, mask = words.reshape(-1), query[0], masks[0]
    in_line = 64 // words.itemsize
    lows, highs = np.empty(_AHEAD, np.int64), np.empty(_AHEAD, np.int64)
    for begun in range(0, len(ball), _AHEAD):
        few = min(_AHEAD, len(ball) - begun)
        for i in range(few):
            lows[i], highs[i] = _bounds(starts, own, low_bits, ball[begun + i])
            for n in range(lows[i] * words.shape[1], min(highs[i], lows[i] + _BLOCK) * words.shape[1], in_line):
                prefetch(flat, np.uint64(n))
        for i in range(few):
            low, high = lows[i], highs[i]
            for first in range(low, high, _BLOCK):
                begin, end = np.uint64(first), np.uint64(min(first + _BLOCK, high))  # unsigned, so that loops vectorize
                nearest = np.int64(2**16)
                if words.shape[1] == 1:
                    for n in range(begin, end):
                        nearest = min(nearest, popcount((np.uint64(flat[n]) ^ asked) & mask))
                else:
                    for n in range(begin, end):
                        nearest = min(nearest, _distance(words, n, query, masks))
                if (nearest << _SHIFT) | first < heap[0]:
                    for n in range(begin, end):
                        _offer(words, n, query, masks, done, heap)


@compiled
def _look_at(
    words: Words,
    positions: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    own: np.uint64,
    low_bits: np.uint64,
    ball: NDArray[np.uint32],
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    done: NDArray[np.int64],
    heap: NDArray[np.int64],
) -> None:
    """Like `_look_along`, for a table with positions."""
    flat, asked, mask = words.reshape(-1), query[0], masks[0]
    lows, highs = np.empty(_AHEAD_AT, np.int64), np.empty(_AHEAD_AT, np.int64)
    for begun in range(0, len(ball), _AHEAD_AT):
        few = min(_AHEAD_AT, len(ball) - begun)
        for i in range(few):
            lows[i], highs[i] = _bounds(starts, own, low_bits, ball[begun + i])
            for n in range(lows[i], min(highs[i], lows[i] + _BLOCK), 16):
                prefetch(positions, np.uint64(n))
        for i in range(few):
            for n in range(lows[i], min(highs[i], lows[i] + _BLOCK)):
                prefetch(flat, np.uint64(positions[n]) * np.uint64(words.shape[1]))
        for i in range(few):
            low, high = lows[i], highs[i]
            for first in range(low, high, _BLOCK):
                begin, end = np.uint64(first), np.uint64(min(first + _BLOCK, high))
                nearest = np.int64(2**16)
                if words.shape[1] == 1:
                    for n in range(begin, end):
                        nearest = min(nearest, popcount((np.uint64(flat[np.uint64(positions[n])]) ^ asked) & mask))
                else:
                    for n in range(begin, end):
                        nearest = min(nearest, _distance(words, int(positions[n]), query, masks))
                if nearest << _SHIFT < heap[0]:  # positions ascend only within one value of a complete substring
                    for n in range(begin, end):
                        _offer(words, int(positions[n]), query, masks, done, heap)


@compiled
def _bounds(
    starts: NDArray[np.uint32], own: np.uint64, low_bits: np.uint64, flip: np.uint32
) -> tuple[np.int64, np.int64]:
    """Where the codes whose substring is `own` with these bits flipped begin and end in the table."""
    value = (own ^ np.uint64(flip)) << low_bits
    return np.int64(starts[value]), np.int64(starts[value + (np.uint64(1) << low_bits)])


@compiled
def _distance(words: Words, n: int, query: NDArray[np.uint64], masks: NDArray[np.uint64]) -> np.int64:
    total = np.int64(0)
    for w in range(len(masks)):
        total += popcount((np.uint64(words[n, w]) ^ query[w]) & masks[w])
    return total


@compiled
def _offer(
    words: Words,
    n: int,
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    done: NDArray[np.int64],
    heap: NDArray[np.int64],
) -> None:
    """Replace the largest key in the max-heap with a code's key, if that is smaller and has not been offered before."""
    key = (_distance(words, n, query, masks) << _SHIFT) | np.int64(n)
    if key >= heap[0]:
        return
    differs = ((np.uint64(words[n, 0]) ^ query[0]) & masks[0]) << np.uint64(64 - 8 * words.itemsize)
    for table in range(len(done)):
        substring = (differs >> np.uint64(64 - BITS * (table + 1))) & np.uint64(2**BITS - 1)
        if popcount(substring) < done[table]:
            return
    place, k = 0, len(heap)
    while 2 * place + 1 < k:
        child = 2 * place + 1
        if child + 1 < k and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = key
