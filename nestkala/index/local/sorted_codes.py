"""Sorted codes, with data structures for fast search that are built once, when they pay off."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...utils.compiled import one_at_a_time
from ...utils.packed_words import Words
from ..scan import SMALL, scan_prefixes
from ..slices import Positions, Slices, count_within, nearest, prefix_words, shared_prefixes
from ..tables import MOST_CODES, Tables, num_tables_of

Method = Literal["auto", "slices", "tables", "scan"]
_FEW = 8
"""Slices are used if there are this many times fewer of them than codes."""
_SHORT = 12
"""Up to this many bits, there are always few slices compared with the codes that tables would visit."""
_WORTH = 64
"""Tables are used if k is this many times smaller than the collection."""
_ROOM = 256
"""Initial capacity of a radius search, in items."""
_PAYS = 100
"""Number of queries after which missing tables are built; building takes as long as this many scans."""


class SortedCodes:
    """Immutable codes in ascending order, searched at any prefix length.

    Attributes:
        words: the codes (N, W), from `ordered_words`.
        bits: code length.
    """

    def __init__(self, words: Words, bits: int, tables: Tables | None = None) -> None:
        self.words, self.bits = words, bits
        self._tables, self._asked = tables, 0
        self._slices: dict[int, Slices] = {}

    def __len__(self) -> int:
        return len(self.words)

    def nearest(
        self, queries: Words, k: int, bits: int, method: Method = "auto"
    ) -> tuple[Positions, NDArray[np.int32]]:
        """The k nearest codes to each query by their first `bits` bits, by distance, then by position: (Q, k) each.

        Args:
            queries: queries (Q, W), with all bits after the first `bits` set to 0.
            k: how many results to return, at most N.
            bits: prefix length to compare.
            method: as for `PrefixIndex.search`.
        """
        if method == "auto" and len(self) * len(queries) <= SMALL:
            return scan_prefixes(self.words, queries, bits, k)
        if method == "tables" and len(self) < MOST_CODES:
            return self.all_tables().search(self.words, queries, bits, k, patient=True)[:2]
        if method == "auto" and self._tables_serve(k, bits):
            near, distances, answered = self._ready_tables(len(queries)).search(self.words, queries, bits, k)
            if not answered.all():
                others = ~answered
                near[others], distances[others] = self._without_tables(queries[others], k, bits)
            return near, distances
        return self._without_tables(queries, k, bits, method)

    def within(self, query: Words, radius: int, bits: int) -> tuple[Positions, NDArray[np.int32]]:
        """All codes within a radius of one query (1, W), by distance, then by position: (n,) each."""
        for k in (_ROOM, len(self) // _WORTH):
            if k and self._tables_serve(k, bits):
                near, distances, answered = self._ready_tables(1).search(self.words, query, bits, k, radius=radius)
                within = int((distances[0] <= radius).sum())
                if answered[0] and within < k:
                    return near[0, :within], distances[0, :within]
        slices, short = self._slices_at(bits), prefix_words(query, bits).astype(np.uint64)
        within = int(count_within(slices.prefixes, slices.starts, short, bits, radius)[0])
        near, distances = nearest(slices.prefixes, slices.starts, short, bits, within)
        return near[0], distances[0]

    def num_prefixes(self, bits: int) -> int:
        """How many distinct prefixes of this length there are."""
        return int(self._num_distinct[bits])

    @property
    def tables(self) -> Tables | None:
        """The tables that exist so far."""
        return self._tables

    @property
    def has_all_tables(self) -> bool:
        """Whether all tables for this code length exist."""
        return self._tables is not None and len(self._tables.starts) == num_tables_of(self.bits)

    def all_tables(self) -> Tables:
        """All tables for this code length, built if needed."""
        with one_at_a_time():
            if self._tables is None or not self.has_all_tables:
                self._tables = Tables.of(self.words, num_tables_of(self.bits))
            return self._tables

    def _without_tables(
        self, queries: Words, k: int, bits: int, method: Method = "auto"
    ) -> tuple[Positions, NDArray[Any]]:
        if method == "slices" or (method == "auto" and _FEW * self.num_prefixes(bits) <= len(self)):
            slices = self._slices_at(bits)
            return nearest(slices.prefixes, slices.starts, prefix_words(queries, bits).astype(np.uint64), bits, k)
        return scan_prefixes(self.words, queries, bits, k)

    def _tables_serve(self, k: int, bits: int) -> bool:
        return bits > _SHORT and _WORTH * k <= len(self) < MOST_CODES

    def _ready_tables(self, num_queries: int) -> Tables:
        """Saved tables, or only the first one, which needs no positions, until the others pay off."""
        with one_at_a_time():
            self._asked += num_queries
            if self._asked > _PAYS:
                return self.all_tables()
            if self._tables is None:
                self._tables = Tables.of(self.words, 1)
            return self._tables

    def _slices_at(self, bits: int) -> Slices:
        if bits not in self._slices:
            with one_at_a_time():
                if bits not in self._slices:
                    self._slices[bits] = Slices.of(self.words, bits)
        return self._slices[bits]

    @cached_property
    def _num_distinct(self) -> NDArray[np.int64]:
        """How many distinct prefixes of 0, 1, ... bits there are."""
        shared = shared_prefixes(self.words, 8 * self.words.dtype.itemsize)
        return np.minimum(1, len(self)) + np.concatenate([[0], shared.cumsum()])
