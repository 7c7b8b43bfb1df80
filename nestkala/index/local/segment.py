"""Sorted items, some of which may have been removed; an index consists of one or more such segments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.compiled import one_at_a_time
from ...utils.errors import NestKALAError
from ...utils.packed_words import Words, ordered_words
from ...utils.text_files import parsed_json
from ..conditions import Condition, items_that_satisfy
from ..slices import Positions
from ..strings import Strings
from .sorted_codes import Method, SortedCodes

_MOST_NARROWED = 8
"""Number of sets of conditions whose matching items are remembered."""
_MORE = 16
"""How many extra codes a search first asks for if some items are removed."""


@dataclass(frozen=True)
class Narrowed:
    """The items of a segment that satisfy some conditions.

    Attributes:
        codes: codes of the items.
        places: their positions in the segment, ascending.
        keys: all metadata keys in the segment, if the conditions needed them.
    """

    codes: SortedCodes
    places: Positions
    keys: frozenset[str]


@dataclass(frozen=True, eq=False)
class Segment:
    """Items in the order of their codes; equal codes are in the order in which they were added.

    A segment never changes: removing items makes another segment that shares the arrays.

    Attributes:
        codes: codes of all N items.
        ids: ids of the items.
        metadata: metadata of the items, as JSON.
        removed: which items are removed, bool (N,); None for none.
        folder: prefix of the ids, such as "2019/".
    """

    codes: SortedCodes
    ids: Strings
    metadata: Strings
    removed: NDArray[np.bool_] | None = None
    folder: str = ""
    _narrowed: dict[tuple[Condition, ...], Narrowed] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, words: Words, bits: int, ids: Strings, metadata: Strings) -> "Segment":
        """Make from items in the order in which they were added."""
        order = np.lexsort(words.T[::-1])  # stable
        return cls(SortedCodes(words[order], bits), ids.take(order), metadata.take(order))

    @classmethod
    def empty(cls, bits: int) -> "Segment":
        """A segment without items."""
        return cls.of(ordered_words(np.empty((0, -(-bits // 8)), np.uint8)), bits, Strings.of([]), Strings.of([]))

    @classmethod
    def merged(cls, segments: Sequence["Segment"]) -> "Segment":
        """Merge the remaining items of one or more segments, in the order of the segments."""
        if len(segments) == 1 and segments[0].removed is None and not segments[0].folder:
            return segments[0]
        words = np.concatenate([segment.codes.words[segment.places] for segment in segments])
        ids = Strings.concatenated(
            [
                Strings.of(segment.names_at(segment.places)) if segment.folder else segment.ids.take(segment.places)
                for segment in segments
            ]
        )
        metadata = Strings.concatenated([segment.metadata.take(segment.places) for segment in segments])
        return cls.of(words, segments[0].codes.bits, ids, metadata)

    def __len__(self) -> int:
        """Number of items that are not removed."""
        return len(self.codes) - self.num_removed

    @cached_property
    def num_removed(self) -> int:
        """Number of removed items."""
        return 0 if self.removed is None else int(self.removed.sum())

    @property
    def places(self) -> Positions:
        """Positions of the items that are not removed."""
        return np.arange(len(self.codes)) if self.removed is None else np.flatnonzero(~self.removed)

    def find(self, names: Sequence[str]) -> Positions:
        """The position of each name, (n,); -1 if it does not exist or was removed."""
        mine = np.array([name.startswith(self.folder) for name in names], bool)
        found = np.where(mine, self.ids.find([name.removeprefix(self.folder) for name in names]), -1)
        if self.removed is not None:
            found[(found >= 0) & self.removed[found]] = -1
        return found

    def without(self, places: Positions) -> "Segment":
        """The same segment without the items at these positions."""
        if not len(places):
            return self
        removed = np.zeros(len(self.codes), bool) if self.removed is None else self.removed.copy()
        removed[places] = True
        return Segment(self.codes, self.ids, self.metadata, removed, self.folder)

    def names_at(self, places: Positions) -> list[str]:
        """The ids of these items."""
        names = self.ids.take(places).as_list()
        return [self.folder + name for name in names] if self.folder else names

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata. Raises NestKALAError if metadata is not a mapping."""
        for name, text in self._left(self.ids, self.metadata):
            metadata = parsed_json(text, f"the metadata of {name!r} in the index")
            if not isinstance(metadata, dict):
                raise NestKALAError(f"the metadata of {name!r} in the index is not a mapping")
            yield self.folder + name, metadata

    def narrowed(self, conditions: tuple[Condition, ...]) -> Narrowed:
        """The items that satisfy these conditions; the latest few results are remembered."""
        with one_at_a_time():
            found = self._narrowed.pop(conditions, None) or self._satisfying(conditions)
            self._narrowed[conditions] = found  # the latest last
            for oldest in list(self._narrowed)[:-_MOST_NARROWED]:
                del self._narrowed[oldest]
            return found

    def nearest(
        self, queries: Words, k: int, bits: int, method: Method, conditions: tuple[Condition, ...] = ()
    ) -> tuple[Positions, NDArray[np.int32]]:
        """The k nearest items to each query, or fewer; see `SortedCodes.nearest`."""
        if conditions:
            narrowed = self.narrowed(conditions)
            near, distances = narrowed.codes.nearest(queries, min(k, len(narrowed.codes)), bits, method)
            return narrowed.places[near], distances
        k = min(k, len(self))
        if self.removed is None:
            return self.codes.nearest(queries, k, bits, method)
        asked = min(k + _MORE, len(self.codes))
        while True:  # until at least k of the results are not removed
            near, distances = self.codes.nearest(queries, asked, bits, method)
            gone = self.removed[near]
            if asked >= k + self.num_removed or (asked - gone.sum(axis=1) >= k).all():
                break
            asked = min(2 * asked, k + self.num_removed)
        left = np.argsort(gone, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(near, left, axis=1), np.take_along_axis(distances, left, axis=1)

    def within(
        self, query: Words, radius: int, bits: int, conditions: tuple[Condition, ...] = ()
    ) -> tuple[Positions, NDArray[np.int32]]:
        """All items within a radius of one query; see `SortedCodes.within`."""
        if conditions:
            narrowed = self.narrowed(conditions)
            near, distances = narrowed.codes.within(query, radius, bits)
            return narrowed.places[near], distances
        near, distances = self.codes.within(query, radius, bits)
        if self.removed is None:
            return near, distances
        left = ~self.removed[near]
        return near[left], distances[left]

    def _satisfying(self, conditions: tuple[Condition, ...]) -> Narrowed:
        if all(condition.key == "folder" for condition in conditions):
            items: Iterator[tuple[str, dict[str, Any]]] = ((self.folder + name, {}) for (name,) in self._left(self.ids))
        else:
            items = self.items()
        found, keys = items_that_satisfy(items, conditions)
        places = self.places[np.array(found, np.int64)]
        return Narrowed(SortedCodes(self.codes.words[places], self.codes.bits), places, frozenset(keys))

    def _left(self, *strings: Strings) -> Iterator[tuple[str, ...]]:
        rows = zip(*strings, strict=True)
        if self.removed is None:
            return rows
        return (row for row, gone in zip(rows, self.removed.tolist(), strict=True) if not gone)
