"""Retrieval metrics of packed codes at every prefix length at once, for galleries of any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..codes import check_packed
from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number
from ..utils.processes import end_process_group_at_exit
from . import cpu as evaluation_cpu
from . import gpu as evaluation_gpu
from .relevance import RelevanceCounts, Values

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHUNK = 2**16  # gallery items per chunk: few enough for a core's cache
_CELLS = 2**22  # counts by query, length and distance kept at once, about 200 MB in total


@dataclass(frozen=True, eq=False)
class Metrics:
    """Retrieval quality at one code length.

    Attributes:
        average_precision: (Q,), of each query over the first `top_k` ranks, ties in gallery order, in [0, 1].
        counts: each query's items by distance and relevance, from which all other metrics follow.
        top_k: number of ranks that count.
    """

    average_precision: Values
    counts: RelevanceCounts = field(repr=False)
    top_k: int

    @cached_property
    def map(self) -> float:
        """Mean average precision, ties in gallery order."""
        return float(self.average_precision.mean())

    @cached_property
    def tie_aware_average_precision(self) -> Values:
        """Each query's expected average precision if items at equal distance are in random order, (Q,)."""
        return self.counts.average_precision(self.top_k)

    @cached_property
    def map_tie_aware(self) -> float:
        """The expectation of `map` if items at equal distance are in random order."""
        return float(self.tie_aware_average_precision.mean())

    @property
    def scores(self) -> dict[str, float]:
        """The mean metrics by name."""
        return {"map": self.map, "map_tie_aware": self.map_tie_aware}

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Metrics of all queries, joined from at least one part of the queries each, against the same gallery."""
        counts = RelevanceCounts(np.concatenate([part.counts.counts for part in parts]))
        return cls(np.concatenate([part.average_precision for part in parts]), counts, parts[0].top_k)


def evaluate(
    q_codes: NDArray[np.uint8],
    q_labels: NDArray[np.generic],
    g_codes: NDArray[np.uint8],
    g_labels: NDArray[np.generic],
    lengths: Sequence[int],
    top_k: int | None = None,
    *,
    device: torch.device | str = "cpu",
    accelerator: "Accelerator | None" = None,
) -> dict[int, Metrics]:
    """Score the Hamming ranking of the gallery for every query, at every prefix length.

    A gallery item is relevant to a query if they share at least one label. `map` is the metric of the deep hashing
    literature: average precision over the first `top_k` ranks, divided by the number of relevant items among them, 0
    for a query with none. `map_tie_aware` is its exact expectation over random order within equal distances, after
    McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied
    scores" (ECIR 2008), extended to a `top_k` that cuts a group of ties.

    The gallery is read in chunks, once to count and once more to break ties, so codes and labels may be memory-mapped
    and larger than memory: memory use grows only with queries and lengths.

    Args:
        q_codes: packed query codes, uint8 (Q, bytes).
        q_labels: multi-hot query labels, (Q, C), bool or 0 and 1.
        g_codes: packed gallery codes, uint8 (G, bytes).
        g_labels: multi-hot gallery labels, (G, C), bool or 0 and 1.
        lengths: prefix lengths in bits, each 1..8 * bytes.
        top_k: number of ranks that count, at least 1; None, or more than G, means all.
        device: if it is a CUDA device, computes there, otherwise on the CPU.
        accelerator: shares the queries among its processes, all of which must call this with the same arguments; each
            returns the metrics of all queries. End the script with `accelerator.end_training()`; otherwise the process
            group is destroyed when the process exits.

    Returns:
        The metrics of each length, in the order of `lengths`.

    Raises:
        NestKALAError: if a type, shape or value is wrong, there are no queries, gallery or lengths, or queries and
            gallery, or codes and labels, do not match.
    """
    _check(q_codes, q_labels, "query")
    _check(g_codes, g_labels, "gallery")
    for what, ours, theirs in (("bytes", q_codes, g_codes), ("classes", q_labels, g_labels)):
        if ours.shape[1] != theirs.shape[1]:
            raise NestKALAError(
                f"queries have {ours.shape[1]} {what} and the gallery {theirs.shape[1]}, need equal numbers"
            )
    num_bits = 8 * q_codes.shape[1]
    for length in lengths:
        if not is_whole_number(length, 1, num_bits):
            raise NestKALAError(f"lengths: got {length}, need integers from 1 to {num_bits}, the codes' bits")
    if not len(lengths):
        raise NestKALAError(f"lengths: got none, need at least one from 1 to {num_bits}")
    if top_k is not None and not is_whole_number(top_k, 1):
        raise NestKALAError(f"top_k: got {top_k}, need an integer of at least 1, or None for the whole gallery")
    top_k = len(g_codes) if top_k is None else min(top_k, len(g_codes))

    queries = q_codes, _packed_labels(q_labels, "query")
    gallery = _Gallery(g_codes, g_labels)
    if accelerator is None or accelerator.num_processes == 1:
        found = _score(queries, gallery, lengths, top_k, device)
    else:
        from accelerate.utils import gather_object

        end_process_group_at_exit()
        share = np.array_split(np.arange(len(q_codes)), accelerator.num_processes)[accelerator.process_index]
        own = _score((queries[0][share], queries[1][share]), gallery, lengths, top_k, device) if len(share) else {}
        parts = [part for part in gather_object([own]) if part]
        found = {length: Metrics.joined([part[length] for part in parts]) for length in parts[0]}
    return {int(length): found[int(length)] for length in lengths}


class _Gallery:
    """Codes (n, bytes) and packed labels (n, ceil(C / 8)) of the items, one chunk at a time; may be read repeatedly."""

    def __init__(self, codes: NDArray[np.uint8], labels: NDArray[np.generic]) -> None:
        self._codes, self._labels = codes, labels

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        for start in range(0, len(self._codes), _CHUNK):
            piece = slice(start, start + _CHUNK)
            yield np.asarray(self._codes[piece]), _packed_labels(self._labels[piece], "gallery")


def _score(
    queries: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    gallery: _Gallery,
    lengths: Sequence[int],
    top_k: int,
    device: torch.device | str,
) -> dict[int, Metrics]:
    """The metrics of the queries (codes and packed labels), computing each length once."""
    ascending = np.unique(lengths).tolist()
    on_gpu = torch.device(device).type == "cuda"
    rank = partial(evaluation_gpu.rank, device=torch.device(device)) if on_gpu else evaluation_cpu.rank
    narrow = np.int32 if len(gallery) < 2**31 else np.int64
    block = max(1, _CELLS // (len(ascending) * (ascending[-1] + 1)))  # queries per block
    parts: dict[int, list[Metrics]] = {length: [] for length in ascending}
    for first in range(0, len(queries[0]), block):
        codes, labels = (of_queries[first : first + block] for of_queries in queries)
        counts, average_precision = rank(codes, labels, gallery, ascending, top_k)
        for k, length in enumerate(ascending):
            found = RelevanceCounts(counts[k, :, : length + 1].astype(narrow))
            parts[length].append(Metrics(average_precision[k], found, top_k))
    return {length: Metrics.joined(of_length) for length, of_length in parts.items()}


def _check(codes: NDArray[np.uint8], labels: NDArray[np.generic], name: str) -> None:
    check_packed(codes, f"{name} codes")
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.shape[1] == 0:
        found = f"shape {labels.shape}" if isinstance(labels, np.ndarray) else type(labels).__name__
        raise NestKALAError(f"{name} labels: got {found}, need a multi-hot numpy array, (N, C) with C >= 1")
    if len(codes) == 0 or len(codes) != len(labels):
        raise NestKALAError(
            f"{name}: got {len(codes)} codes and {len(labels)} labels, need equal numbers, at least one of each"
        )


def _packed_labels(labels: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Multi-hot labels (N, C) as bits (N, ceil(C / 8)). Raises NestKALAError for values other than 0 and 1."""
    if labels.dtype != np.bool_:
        wrong = (labels != 0) & (labels != 1)
        if wrong.any():
            raise NestKALAError(f"{name} labels: got {labels[wrong][0]}, need only 0 and 1 (multi-hot)")
    return np.packbits(labels != 0, axis=1)
