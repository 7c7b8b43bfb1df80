"""Chooses a code length: quality, bytes and time of every prefix of a trained model's codes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..evaluation import evaluate
from ..index import PrefixIndex
from ..utils.errors import NestKALAError
from .finished_run import FinishedRun, RunCodes, copies_found

_KEPT = 0.95
_TIMED_QUERIES = 20


@dataclass(frozen=True)
class Length:
    """Quality and cost of a code length.

    Attributes:
        bits: the length.
        bytes: size of an image's code, bits rounded up to whole bytes.
        map: mean average precision, ties in gallery order.
        map_tie_aware: its expectation over random order within ties.
        ms: milliseconds for one search for ten images, the median of twenty queries.
        copy_recall_at_1: share of near copies that find their original first (`CopyRecall`); None for features.
        copy_recall_at_10: share that find it among the first ten; None for features.
    """

    bits: int
    bytes: int
    map: float
    map_tie_aware: float
    ms: float
    copy_recall_at_1: float | None = None
    copy_recall_at_10: float | None = None


def measure_lengths(run: Path, progress: bool = False) -> list[Length]:
    """Score every prefix length, 1 to the longest, of a run's model on its own queries and gallery, in one pass.

    Raises:
        NestKALAError: if there is no such run, its codes do not nest, or its data no longer exists.
    """
    return measure_codes(nested_codes(run, progress))


def nested_codes(run: Path, progress: bool = False) -> RunCodes:
    """The codes of a run whose codes nest. Raises NestKALAError as `measure_lengths` does."""
    opened = FinishedRun.open(run)
    if not opened.hasher.model.head.nested:
        raise NestKALAError(f"the codes of {run} do not nest: only the trained lengths are available")
    return opened.encode(progress)


def measure_codes(codes: RunCodes) -> list[Length]:
    """Like `measure_lengths`, for existing codes."""
    head, queries = codes.hasher.model.head, codes.queries
    every = range(1, head.lengths[-1] + 1)
    scores = evaluate(queries, codes.query_labels, codes.gallery, codes.gallery_labels, every, codes.config.top_k)
    copies = copies_found(codes, every)
    index = PrefixIndex.build(codes.gallery, bits=head.lengths[-1])
    return [
        Length(
            bits,
            -(-bits // 8),
            **scores[bits].scores,
            ms=_milliseconds(index, queries, bits),
            **(copies[bits].scores if copies else {}),
        )
        for bits in every
    ]


def recommend(
    lengths: list[Length], min_map: float | None = None, max_ms: float | None = None, max_bytes: int | None = None
) -> Length:
    """The shortest length within the limits with at least `min_map`; without `min_map`, the best length within them.

    Without any limit, the shortest that keeps 95 % of the best. Quality is the tie-aware mAP.

    Raises:
        NestKALAError: if no length qualifies; says how close one comes.
    """
    possible = [
        length
        for length in lengths
        if (max_ms is None or length.ms <= max_ms) and (max_bytes is None or length.bytes <= max_bytes)
    ]
    if not possible:
        quickest = min(lengths, key=lambda length: length.ms)
        raise NestKALAError(
            f"no length is within the limits: the shortest takes 1 byte, the fastest {quickest.ms:.3f} ms "
            f"({quickest.bits} bits)"
        )
    best = max(possible, key=lambda length: length.map_tie_aware)
    if min_map is None and (max_ms is not None or max_bytes is not None):
        return best
    needed = _KEPT * best.map_tie_aware if min_map is None else min_map
    enough = [length for length in possible if length.map_tie_aware >= needed]
    if not enough:
        raise NestKALAError(
            f"no length within the limits reaches a tie-aware mAP of {needed:g}: the best is {best.map_tie_aware:.4f}, "
            f"at {best.bits} bits"
        )
    return enough[0]


def shortest_sufficient(quality: Mapping[int, float]) -> int:
    """Of {bits: quality}, the fewest bits that keep 95 % of the best quality."""
    needed = _KEPT * max(quality.values())
    return min(bits for bits, value in quality.items() if value >= needed)


def reason(
    lengths: Sequence[Length],
    chosen: Length,
    min_map: float | None = None,
    max_ms: float | None = None,
    max_bytes: int | None = None,
) -> str:
    """The reason why `recommend` chose a length within these limits, in one or two sentences."""
    bounds = [f"{max_ms:g} ms per search"] if max_ms is not None else []
    bounds += [f"{max_bytes:,} byte{'s' * (max_bytes != 1)} per image"] if max_bytes is not None else []
    within = f" within {' and '.join(bounds)}" if bounds else ""
    best = max(lengths, key=lambda length: length.map_tie_aware)
    at_best = f"{best.map_tie_aware:.4f} at {best.bits} bits"
    if min_map is not None:
        why = f"It is the shortest length{within} with a tie-aware mAP of {min_map:g} or more."
    elif bounds:
        why = (
            f"It has the best mAP{within}."
            if chosen is best
            else f"It has the best mAP{within}; the best of all is {at_best}."
        )
    else:
        why = f"It is the shortest length that keeps {_KEPT:g} of the best mAP, {at_best}."
    longest = lengths[-1]
    if chosen is longest:
        return why
    compared = f" All {longest.bits} bits take {longest.bytes} bytes and reach {longest.map_tie_aware:.4f}"
    if longest.copy_recall_at_1 is not None and chosen.copy_recall_at_1 is not None:
        compared += (
            f"; of the re-saved copies, {longest.copy_recall_at_1:.4f} find their original first with them, "
            f"{chosen.copy_recall_at_1:.4f} with {chosen.bits} bits"
        )
    return f"{why}{compared}."


def _milliseconds(index: PrefixIndex, queries: np.ndarray, bits: int) -> float:
    index.search(queries[:1], bits=bits)  # makes the slices
    seconds = []
    for query in queries[:_TIMED_QUERIES, None]:
        started = time.perf_counter()
        index.search(query, bits=bits)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))
