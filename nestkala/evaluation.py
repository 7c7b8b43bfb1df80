"""Retrieval metrics of packed codes at every prefix length, from one pass over the gallery a query."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numba import config, njit, prange, set_num_threads
from numpy.typing import NDArray

from .codes import check_packed
from .errors import NestKALAError
from .relevance import RelevanceCounts
from .words import popcount


@dataclass(frozen=True)
class Metrics:
    """Retrieval quality at one code length, means over the queries, each in [0, 1].

    Attributes:
        map: mean average precision, ties in gallery order.
        map_tie_aware: the expectation of `map` when items at equal distance come in random order.
        counts: of each query's items by distance and relevance, which give precision and recall.
    """

    map: float
    map_tie_aware: float
    counts: RelevanceCounts = field(repr=False, compare=False)

    @property
    def scores(self) -> dict[str, float]:
        """The means by name."""
        return {"map": self.map, "map_tie_aware": self.map_tie_aware}


def evaluate(
    q_codes: NDArray[np.uint8],
    q_labels: NDArray[np.generic],
    g_codes: NDArray[np.uint8],
    g_labels: NDArray[np.generic],
    lengths: Sequence[int],
    top_k: int | None = None,
) -> dict[int, Metrics]:
    """Score Hamming ranking of the gallery for every query, at every prefix length.

    A gallery item is relevant to a query if they share at least one label. `map` is the deep hashing
    literature's: average precision over the first `top_k` places, divided by the number of relevant items
    among these, 0 for a query with none. `map_tie_aware` is its exact expectation over random order within
    equal distances, after McSherry and Najork, "Computing information retrieval performance measures
    efficiently in the presence of tied scores" (ECIR 2008), extended to a `top_k` that cuts a group of ties.
    No array of queries times gallery is built.

    Args:
        q_codes: packed query codes, uint8 (Q, bytes).
        q_labels: multi-hot query labels, (Q, C), bool or 0 and 1.
        g_codes: packed gallery codes, uint8 (G, bytes).
        g_labels: multi-hot gallery labels, (G, C), bool or 0 and 1.
        lengths: prefix lengths in bits, each 1..8 * bytes.
        top_k: places of the ranking that count, at least 1; None, or more than G, means all.

    Returns:
        The metrics of each length, in the order of `lengths`.

    Raises:
        NestKALAError: wrong type, shape or values, no queries, no gallery or no lengths, or queries and
            gallery, or codes and labels, that do not match.
    """
    _check(q_codes, q_labels, "query")
    _check(g_codes, g_labels, "gallery")
    for what, ours, theirs in (("bytes", q_codes, g_codes), ("classes", q_labels, g_labels)):
        if ours.shape[1] != theirs.shape[1]:
            raise NestKALAError(
                f"queries have {ours.shape[1]} {what} and the gallery {theirs.shape[1]}, need equally many"
            )
    num_bits = 8 * q_codes.shape[1]
    for length in lengths:
        if length not in range(1, num_bits + 1):
            raise NestKALAError(f"lengths: got {length}, need integers from 1 to {num_bits}, the codes' bits")
    if not len(lengths):
        raise NestKALAError(f"lengths: got none, need at least one from 1 to {num_bits}")
    if top_k is not None and top_k < 1:
        raise NestKALAError(f"top_k: got {top_k}, need at least 1, or None for the whole gallery")
    top_k = len(g_codes) if top_k is None else min(top_k, len(g_codes))

    ascending = np.unique(lengths)
    # Distances grow from length to length, so each length adds the bits that it has beyond the one before.
    bit = np.arange(num_bits)
    first = np.append(0, ascending[:-1])
    added = (first[:, None] <= bit) & (bit < ascending[:, None])  # (m, bits)
    with _as_many_threads_as_torch():
        counts, average_precision = _scan(
            _words(q_codes),
            _words(np.packbits(q_labels != 0, axis=1)),
            _words(g_codes),
            _words(np.packbits(g_labels != 0, axis=1)),
            _words(np.packbits(added, axis=1)),
            int(ascending[-1]),
            top_k,
        )
    metrics = {}
    for k, length in enumerate(ascending.tolist()):
        found = RelevanceCounts(counts[k, :, : length + 1])
        metrics[length] = Metrics(
            map=float(average_precision[k].mean()),
            map_tie_aware=float(found.average_precision(top_k).mean()),
            counts=found,
        )
    return {int(length): metrics[int(length)] for length in lengths}


@contextmanager
def _as_many_threads_as_torch() -> Iterator[None]:
    threads = torch.get_num_threads()
    set_num_threads(min(threads, config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(threads)  # which numba's OpenMP layer changes


def _check(codes: NDArray[np.uint8], labels: NDArray[np.generic], name: str) -> None:
    check_packed(codes, f"{name} codes")
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.shape[1] == 0:
        found = f"shape {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise NestKALAError(f"{name} labels: got {found}, need a multi-hot numpy array, (N, C) with C >= 1")
    if len(codes) == 0 or len(codes) != len(labels):
        raise NestKALAError(
            f"{name}: got {len(codes)} codes and {len(labels)} labels, need equally many and at least one"
        )
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        raise NestKALAError(f"{name} labels: got {labels[wrong][0]}, need only 0 and 1 (multi-hot)")


def _words(packed: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Packed bits (N, bytes) as 64-bit words (ceil(bytes / 8), N): a contiguous row a word, for the scan."""
    padded = np.pad(np.ascontiguousarray(packed), ((0, 0), (0, -packed.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


@njit(cache=True)
def _average_precision(
    distance: NDArray[np.int32], relevant: NDArray[np.uint8], counts: NDArray[np.int32], top_k: int
) -> float:
    """AP over the first `top_k` places of one query's stable ranking, which counting sort gives item by item.

    distance (G,), relevant (G,) in {0, 1}, counts (b + 1, 2) of items by distance and relevance.
    """
    place = np.zeros(len(counts), np.int64)
    hits = np.zeros(len(counts), np.int64)
    for d in range(1, len(counts)):
        place[d] = place[d - 1] + counts[d - 1, 0] + counts[d - 1, 1]
        hits[d] = hits[d - 1] + counts[d - 1, 1]
    found = 0
    precisions = 0.0
    for g in range(len(distance)):
        d = distance[g]
        place[d] += 1
        if relevant[g] and place[d] <= top_k:
            hits[d] += 1
            found += 1
            precisions += hits[d] / place[d]
    return precisions / max(found, 1)


@njit(parallel=True, cache=True)
def _scan(
    q_words: NDArray[np.uint64],
    q_labels: NDArray[np.uint64],
    g_words: NDArray[np.uint64],
    g_labels: NDArray[np.uint64],
    added: NDArray[np.uint64],
    max_bits: int,
    top_k: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Counts of gallery items (m, Q, max_bits + 1, 2) by distance and relevance, and the stable AP (m, Q).

    Codes, labels and the masks of the bits that each of the m lengths adds come as `_words`.
    """
    num_lengths, num_queries, num_gallery = added.shape[1], q_words.shape[1], g_words.shape[1]
    counts = np.zeros((num_lengths, num_queries, max_bits + 1, 2), np.int32)
    average_precision = np.zeros((num_lengths, num_queries))
    for q in prange(num_queries):
        relevant = np.zeros(num_gallery, np.uint8)
        for w in range(len(q_labels)):
            if q_labels[w, q]:
                for g in range(num_gallery):
                    relevant[g] |= (q_labels[w, q] & g_labels[w, g]) != 0
        distance = np.zeros(num_gallery, np.int32)
        for k in range(num_lengths):
            for w in range(len(q_words)):
                if added[w, k]:
                    for g in range(num_gallery):
                        distance[g] += popcount((q_words[w, q] ^ g_words[w, g]) & added[w, k])
            for g in range(num_gallery):
                counts[k, q, distance[g], relevant[g]] += 1
            average_precision[k, q] = _average_precision(distance, relevant, counts[k, q], top_k)
    return counts, average_precision
