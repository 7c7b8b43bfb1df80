"""A scan of all codes, in place at a prefix length."""

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled, in_threads
from ..utils.machine import compute_threads
from ..utils.packed_words import Words, popcount
from .slices import Distances, Positions, best

SMALL = 2**14
"""Largest number of codes times queries for NumPy; loading Numba would take longer than such a search."""
_BLOCK = 1024
_FEW_QUERIES = 8
_WORTH_A_THREAD = 2**19  # codes to compare


def scan_prefixes(words: Words, queries: Words, bits: int, k: int) -> tuple[Positions, Distances]:
    """The k nearest codes to each query by their first `bits` bits, by distance, then by position: (Q, k) each.

    Codes (N, W) and queries (Q, W) are from `ordered_words`; k is at most N.
    """
    if len(words) * len(queries) <= SMALL:
        return _scan_small(words, queries, bits, k)
    # Divide few queries by parts of the collection among the cores, and many by query.
    parts = max(1, min(compute_threads(), len(words) // _WORTH_A_THREAD)) if len(queries) < _FEW_QUERIES else 1
    bounds = np.linspace(0, len(words), parts + 1).astype(np.int64)
    near = np.zeros((len(queries), parts, k), np.int64)
    distances = np.full((len(queries), parts, k), bits + 1, np.int32)  # of unused positions
    given = words, queries.astype(np.uint64), prefix_masks(words, bits), bits, bounds, near, distances
    in_threads(
        lambda first, last: _scan(first, last, *given),
        len(queries) * parts,
        at_least=1 + _WORTH_A_THREAD * parts // len(words),
    )
    together = len(queries), parts * k
    return best(near.reshape(together), distances.reshape(together), k)


def prefix_masks(words: Words, bits: int) -> NDArray[np.uint64]:
    """Masks of the first `bits` bits of codes (N, W), for the words that contain any, (w,)."""
    width = 8 * words.dtype.itemsize
    masks = [(1 << width) - (1 << max(0, width * (w + 1) - bits)) for w in range(-(-bits // width))]
    return np.array(masks, np.uint64)


def _scan_small(words: Words, queries: Words, bits: int, k: int) -> tuple[Positions, Distances]:
    masks = prefix_masks(words, bits)
    differing = (words[:, : len(masks)] ^ queries[:, None, : len(masks)]) & masks.astype(words.dtype)  # (Q, N, w)
    distances = np.bitwise_count(differing).sum(axis=2, dtype=np.int32)
    return best(np.broadcast_to(np.arange(len(words)), distances.shape), distances, k)


@compiled
def _scan(
    first: int,
    last: int,
    words: Words,
    queries: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    bits: int,
    bounds: NDArray[np.int64],
    near: NDArray[np.int64],
    distances: NDArray[np.int32],
) -> None:
    """The k nearest to each query in each part of the codes, (Q, parts, k) each, ascending by position.

    A task is a query and a part; these are those from `first` to below `last`.
    """
    parts, k = near.shape[1:]
    room = 4 * k + _BLOCK
    kept, kept_distances = np.empty(room, np.int64), np.empty(room, np.int32)
    counts, block = np.empty(bits + 1, np.int64), np.empty(_BLOCK, np.uint16)
    for task in range(first, last):
        q, part = task // parts, task % parts
        query, start, stop = queries[q], bounds[part], bounds[part + 1]
        num_kept, limit, within = 0, bits, 0  # `within` of the first k items within the limit are found
        for d in range(bits + 1):
            counts[d] = 0
        for begin in range(start, stop, _BLOCK):
            end = min(begin + _BLOCK, stop)
            if _measure(words[begin:end], query, masks, block) > limit:
                continue
            for n in range(end - begin):
                if block[n] <= limit:
                    kept[num_kept], kept_distances[num_kept] = begin + n, block[n]
                    num_kept += 1
                    counts[block[n]] += 1
                    within += 1
                    while limit >= 0 and within >= k:  # a later item at the limit would come after k others
                        within -= counts[limit]
                        limit -= 1
            if limit < 0:
                break
            if num_kept > room - _BLOCK:
                num_kept = _keep_nearest(
                    kept[:num_kept], kept_distances[:num_kept], limit, k - within, kept, kept_distances
                )
        _keep_nearest(kept[:num_kept], kept_distances[:num_kept], limit, k - within, near[q, part], distances[q, part])


@compiled
def _measure(
    words: Words,
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    distances: NDArray[np.uint16],
) -> int:
    """Write the distance of each code and return the smallest."""
    if words.shape[1] == 1:  # a separate loop, so that the compiler can vectorize it
        flat, asked, mask = words.reshape(-1), query[0], masks[0]
        for n in range(len(flat)):
            distances[n] = popcount((np.uint64(flat[n]) ^ asked) & mask)
    else:
        for n in range(len(words)):
            total = np.int64(0)
            for w in range(len(masks)):
                total += popcount((np.uint64(words[n, w]) ^ query[w]) & masks[w])
            distances[n] = total
    return int(distances[: len(words)].min())  # a loop here would make the one above slower


@compiled
def _keep_nearest(
    kept: Positions,
    kept_distances: Distances,
    limit: int,
    beyond: int,
    near: Positions,
    distances: Distances,
) -> int:
    """Write those within the limit and the first `beyond` that are one farther; return how many."""
    written = 0
    for n in range(len(kept)):
        d = kept_distances[n]
        if d > limit:
            if d > limit + 1 or beyond == 0:
                continue
            beyond -= 1
        near[written], distances[written] = kept[n], d
        written += 1
    return written
