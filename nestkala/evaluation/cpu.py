"""Counts by distance and relevance, and average precision, on the CPU: one compiled counting sort per query."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..utils.compiled import compiled, in_threads
from ..utils.packed_words import popcount

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Sums = NDArray[np.int64]
Distances = NDArray[np.uint16]

_WORTH_A_THREAD = 2**16  # pairs of a query and an item


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
    for codes, labels in gallery:
        _by_query(_count, *queries, _words(codes), _words(labels), added, counts)
    # Before any item at this distance: the ranks taken, and the relevant items among them.
    places = np.zeros(shape, np.int64)
    hits = np.zeros(shape, np.int64)
    places[:, :, 1:] = counts.sum(axis=3).cumsum(axis=2)[:, :, :-1]
    hits[:, :, 1:] = counts[..., 1].cumsum(axis=2)[:, :, :-1]
    precisions = np.zeros(shape[:2])
    found = np.zeros(shape[:2], np.int64)
    for codes, labels in gallery:
        chunk = _words(codes), _words(labels)
        _by_query(_add_precisions, *queries, *chunk, added, places, hits, top_k, precisions, found)
    return counts, precisions / np.maximum(found, 1)


def _by_query(
    kernel: Callable[..., None], q_words: Words, q_labels: Words, g_words: Words, g_labels: Words, *others: object
) -> None:
    """Call a kernel with the queries divided among threads, as many as torch uses."""
    num_queries, num_items = q_words.shape[1], g_words.shape[1]

    def work(first: int, last: int) -> None:
        distance, relevant = np.empty(num_items, np.uint16), np.empty(num_items, np.uint8)
        kernel(first, last, distance, relevant, q_words, q_labels, g_words, g_labels, *others)

    in_threads(work, num_queries, at_least=1 + _WORTH_A_THREAD // num_items, threads=torch.get_num_threads())


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
def _compare(
    q: int,
    distance: Distances,
    relevant: Bytes,
    q_labels: Words,
    g_labels: Words,
) -> None:
    """Set `distance` (G,) to 0, and `relevant` (G,) to whether each item shares a label with the query."""
    for g in range(len(relevant)):
        distance[g] = relevant[g] = 0
    for w in range(len(q_labels)):
        asked = q_labels[w, q]
        if asked:
            for g in range(len(relevant)):
                relevant[g] |= (asked & g_labels[w, g]) != 0


@compiled
def _add_distance(distance: Distances, q: int, q_words: Words, g_words: Words, added: Words, k: int) -> None:
    """Add each item's distance on the bits that length k adds to `distance` (G,)."""
    for w in range(len(q_words)):
        asked, mask = q_words[w, q], added[w, k]
        if mask:
            for g in range(len(distance)):
                distance[g] += popcount((asked ^ g_words[w, g]) & mask)


@compiled
def _count(
    first: int,
    last: int,
    distance: Distances,
    relevant: Bytes,
    q_words: Words,
    q_labels: Words,
    g_words: Words,
    g_labels: Words,
    added: Words,
    counts: Sums,
) -> None:
    """Add a chunk of the gallery to `counts` (m, Q, b + 1, 2), for some of the queries."""
    for q in range(first, last):
        _compare(q, distance, relevant, q_labels, g_labels)
        for k in range(added.shape[1]):
            _add_distance(distance, q, q_words, g_words, added, k)
            count = counts[k, q]
            for g in range(len(relevant)):
                count[distance[g], relevant[g]] += 1


@compiled
def _add_precisions(
    first: int,
    last: int,
    distance: Distances,
    relevant: Bytes,
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

    For some of the queries. Advances `places` and `hits` (m, Q, b + 1), the counts before the next item at each
    distance.
    """
    for q in range(first, last):
        _compare(q, distance, relevant, q_labels, g_labels)
        for k in range(added.shape[1]):
            _add_distance(distance, q, q_words, g_words, added, k)
            place, hit = places[k, q], hits[k, q]
            total, number = 0.0, 0
            for g in range(len(relevant)):
                d = distance[g]
                taken = place[d] + 1
                place[d] = taken
                if relevant[g] and taken <= top_k:
                    hit[d] += 1
                    number += 1
                    total += hit[d] / taken
            precisions[k, q] += total
            found[k, q] += number
