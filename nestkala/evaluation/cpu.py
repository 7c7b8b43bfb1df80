"""Counts by distance and relevance, and average precision, on the CPU: one compiled counting sort per query."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ..utils.compiled import compiled, compiled_parallel, prange
from ..utils.packed_words import popcount

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Sums = NDArray[np.int64]


def rank(
    q_codes: Bytes, q_labels: Bytes, gallery: Iterable[tuple[Bytes, Bytes]], lengths: Sequence[int], top_k: int
) -> tuple[Sums, NDArray[np.float64]]:
    """Rank the gallery for every query at each of m ascending lengths, up to b bits.

    Args:
        q_codes: packed (Q, bytes).
        q_labels: multi-hot labels, packed (Q, ceil(C / 8)).
        gallery: codes and labels in the same format, one chunk at a time; it is read twice.
        lengths: in bits.
        top_k: number of ranks that count, 1 to the number of items.

    Returns:
        Numbers of items (m, Q, b + 1, 2) by distance, not relevant and relevant; and the average precision (m, Q), ties
        in gallery order.
    """
    queries, added = (_words(q_codes), _words(q_labels)), _words(_added_bits(lengths, q_codes.shape[1]))
    shape = len(lengths), len(q_codes), lengths[-1] + 1
    counts = np.zeros((*shape, 2), np.int64)
    with _as_many_threads_as_torch():
        for codes, labels in gallery:
            _count(*queries, _words(codes), _words(labels), added, counts)
        # Before any item at this distance: the ranks taken, and the relevant items among them.
        places = np.zeros(shape, np.int64)
        hits = np.zeros(shape, np.int64)
        places[:, :, 1:] = counts.sum(axis=3).cumsum(axis=2)[:, :, :-1]
        hits[:, :, 1:] = counts[..., 1].cumsum(axis=2)[:, :, :-1]
        precisions = np.zeros(shape[:2])
        found = np.zeros(shape[:2], np.int64)
        for codes, labels in gallery:
            _add_precisions(*queries, _words(codes), _words(labels), added, places, hits, top_k, precisions, found)
    return counts, precisions / np.maximum(found, 1)


@contextmanager
def _as_many_threads_as_torch() -> Iterator[None]:
    from numba import config, set_num_threads

    threads = torch.get_num_threads()
    set_num_threads(min(threads, config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(threads)  # numba's OpenMP layer changes it


def _added_bits(lengths: Sequence[int], num_bytes: int) -> Bytes:
    """Masks (m, bytes) of the bits that each length adds to the one before: distances grow from length to length."""
    bit, stop = np.arange(8 * num_bytes), np.array(lengths)
    start = np.append(0, stop[:-1])
    return np.packbits((start[:, None] <= bit) & (bit < stop[:, None]), axis=1)


def _words(packed: Bytes) -> Words:
    """Packed bits (N, bytes) as 64-bit words (ceil(bytes / 8), N): one contiguous row per word, for the scan."""
    padded = np.pad(np.ascontiguousarray(packed), ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


@compiled
def _relevant(q: int, q_labels: Words, g_labels: Words) -> NDArray[np.uint8]:
    """Whether each item shares a label with the query, (G,)."""
    relevant = np.zeros(g_labels.shape[1], np.uint8)
    for w in range(len(q_labels)):
        if q_labels[w, q]:
            for g in range(len(relevant)):
                relevant[g] |= (q_labels[w, q] & g_labels[w, g]) != 0
    return relevant


@compiled
def _add_distance(distance: NDArray[np.uint16], q: int, q_words: Words, g_words: Words, mask: Words) -> None:
    """Add each item's distance on the bits of a mask (W,) to `distance` (G,)."""
    for w in range(len(q_words)):
        if mask[w]:
            for g in range(len(distance)):
                distance[g] += popcount((q_words[w, q] ^ g_words[w, g]) & mask[w])


@compiled_parallel
def _count(q_words: Words, q_labels: Words, g_words: Words, g_labels: Words, added: Words, counts: Sums) -> None:
    """Add a chunk of the gallery to `counts` (m, Q, b + 1, 2)."""
    for q in prange(q_words.shape[1]):
        relevant = _relevant(q, q_labels, g_labels)
        distance = np.zeros(len(relevant), np.uint16)
        for k in range(added.shape[1]):
            _add_distance(distance, q, q_words, g_words, added[:, k])
            for g in range(len(relevant)):
                counts[k, q, distance[g], relevant[g]] += 1


@compiled_parallel
def _add_precisions(
    q_words: Words,
    q_labels: Words,
    g_words: Words,
    g_labels: Words,
    added: Words,
    places: Sums,
    hits: Sums,
    top_k: int,
    precisions: NDArray[np.float64],
    found: Sums,
) -> None:
    """Add a chunk's precisions at the relevant items to `precisions` (m, Q), and their number to `found` (m, Q).

    Advances `places` and `hits` (m, Q, b + 1), the counts before the next item at each distance.
    """
    for q in prange(q_words.shape[1]):
        relevant = _relevant(q, q_labels, g_labels)
        distance = np.zeros(len(relevant), np.uint16)
        for k in range(added.shape[1]):
            _add_distance(distance, q, q_words, g_words, added[:, k])
            place, hit = places[k, q], hits[k, q]
            total, number = 0.0, 0
            for g in range(len(relevant)):
                d = distance[g]
                place[d] += 1
                if relevant[g] and place[d] <= top_k:
                    hit[d] += 1
                    number += 1
                    total += hit[d] / place[d]
            precisions[k, q] += total
            found[k, q] += number
