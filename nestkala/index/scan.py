"""A scan of all codes, in place at a prefix length."""

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled, compiled_parallel, prange
from ..utils.packed_words import Words, popcount
from .slices import Distances, Positions, best

SMALL = 2**14
"""Largest number of codes times queries for NumPy; loading Numba would take longer than such a search."""
_BLOCK = 1024
_FEW_QUERIES = 8


def scan_prefixes(words: Words, queries: Words, bits: int, k: int) -> tuple[Positions, Distances]:
    """The k nearest codes to each query by their first `bits` bits, by distance, then by position: (Q, k) each.

    Codes (N, W) and queries (Q, W) are from `ordered_words`; k is at most N.
    """
    if len(words) * len(queries) <= SMALL:
        return _scan_small(words, queries, bits, k)
    from numba import get_num_threads

    masks = prefix_masks(words, bits)
    # Divide few queries by parts of the collection among the cores, and many by query.
    parts = get_num_threads() if len(queries) < _FEW_QUERIES else 1
    bounds = np.linspace(0, len(words), parts + 1).astype(np.int64)
    near, distances = _scan(words, queries.astype(np.uint64), masks, bits, k, bounds)
    if parts == 1:
        return near[:, 0], distances[:, 0]
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


@compiled_parallel
def _scan(
    words: NDArray[np.uint64],
    queries: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    bits: int,
    k: int,
    bounds: NDArray[np.int64],
) -> tuple[Positions, Distances]:
    """The k nearest of each part of the codes, (Q, parts, k) each; unused positions have distance bits + 1."""
    parts = len(bounds) - 1
    near = np.zeros((len(queries), parts, k), np.int64)
    distances = np.full((len(queries), parts, k), bits + 1, np.int32)
    for task in prange(len(queries) * parts):
        q, part = task // parts, task % parts
        _scan_part(words, queries[q], masks, bits, bounds[part], bounds[part + 1], near[q, part], distances[q, part])
    return near, distances


@compiled
def _scan_part(
    words: NDArray[np.uint64],
    query: NDArray[np.uint64],
    masks: NDArray[np.uint64],
    bits: int,
    start: int,
    stop: int,
    near: Positions,
    distances: Distances,
) -> None:
    k = len(near)
    room = 4 * k + _BLOCK
    kept, kept_distances = np.empty(room, np.int64), np.empty(room, np.int32)
    num_kept, limit, within = 0, bits, 0  # `within` of the first k items within the limit are found
    counts = np.zeros(bits + 1, np.int64)
    block = np.empty(_BLOCK, np.uint16)
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        if _measure(words[first:last], query, masks, block) > limit:
            continue
        for n in range(last - first):
            if block[n] <= limit:
                kept[num_kept], kept_distances[num_kept] = first + n, block[n]
                num_kept += 1
                counts[block[n]] += 1
                within += 1
                while limit >= 0 and within >= k:  # a later item at the limit would come after k others
                    within -= counts[limit]
                    limit -= 1
        if limit < 0:
            break
        if num_kept > room - _BLOCK:
            num_kept = _keep_nearest(kept, kept_distances, num_kept, kept, kept_distances, k)
    _keep_nearest(kept, kept_distances, num_kept, near, distances, k)


@compiled
def _measure(
    words: NDArray[np.uint64], query: NDArray[np.uint64], masks: NDArray[np.uint64], distances: NDArray[np.uint16]
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
    return int(distances[: len(words)].min())


@compiled
def _keep_nearest(
    kept: Positions, kept_distances: Distances, num: int, near: Positions, distances: Distances, k: int
) -> int:
    """Write the k nearest (or fewer) of the first `num` in order, and return how many."""
    order = np.argsort(kept_distances[:num], kind="mergesort")[:k]
    chosen, chosen_distances = kept[order], kept_distances[order]
    near[: len(order)], distances[: len(order)] = chosen, chosen_distances
    return len(order)
