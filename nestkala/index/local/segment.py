"""Items of an index in sorted order, some of them removed since; one or several such segments make an index."""

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
"""Sets of conditions whose items are remembered."""
_MORE = 16
"""How many more codes a search asks for at first where some items are removed."""


@dataclass(frozen=True)
class Narrowed:
    """The items of a segment for which conditions hold.

    Attributes:
        codes: theirs.
        places: in the segment, ascending.
        keys: of metadata that any item of the segment has, as far as the conditions needed to know.
    """

    codes: SortedCodes
    places: Positions
    keys: frozenset[str]


@dataclass(frozen=True, eq=False)
class Segment:
    """Items in the order of their codes, and where those are equal in that of being added.

    A segment never changes: what removes items makes another segment that shares the arrays.

    Attributes:
        codes: of all items, N.
        ids: theirs.
        metadata: theirs, as JSON.
        removed: which are removed, bool (N,); None for none.
        folder: put before the ids, such as "2019/".
    """

    codes: SortedCodes
    ids: Strings
    metadata: Strings
    removed: NDArray[np.bool_] | None = None
    folder: str = ""
    _narrowed: dict[tuple[Condition, ...], Narrowed] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, words: Words, bits: int, ids: Strings, metadata: Strings) -> "Segment":
        """Of items in the order of being added."""
        order = np.lexsort(words.T[::-1])  # stable
        return cls(SortedCodes(words[order], bits), ids.take(order), metadata.take(order))

    @classmethod
    def empty(cls, bits: int) -> "Segment":
        """Of no items."""
        return cls.of(ordered_words(np.empty((0, -(-bits // 8)), np.uint8)), bits, Strings.of([]), Strings.of([]))

    @classmethod
    def merged(cls, segments: Sequence["Segment"]) -> "Segment":
        """What is left in several, one at least, as one; the items of each come after those of the one before."""
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
        """How many items are left."""
        return len(self.codes) - self.num_removed

    @cached_property
    def num_removed(self) -> int:
        """How many are removed."""
        return 0 if self.removed is None else int(self.removed.sum())

    @property
    def places(self) -> Positions:
        """Of the items that are left."""
        return np.arange(len(self.codes)) if self.removed is None else np.flatnonzero(~self.removed)

    def find(self, names: Sequence[str]) -> Positions:
        """The place of each name, (n,); -1 for one that is not there, or not any more."""
        mine = np.array([name.startswith(self.folder) for name in names], bool)
        found = np.where(mine, self.ids.find([name.removeprefix(self.folder) for name in names]), -1)
        if self.removed is not None:
            found[(found >= 0) & self.removed[found]] = -1
        return found

    def without(self, places: Positions) -> "Segment":
        """The same without the items at these places."""
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
        """The ids with their metadata. Raises NestKALAError for metadata that is no mapping."""
        for name, text in self._left(self.ids, self.metadata):
            metadata = parsed_json(text, f"the metadata of {name!r} in the index")
            if not isinstance(metadata, dict):
                raise NestKALAError(f"the metadata of {name!r} in the index is no mapping")
            yield self.folder + name, metadata

    def narrowed(self, conditions: tuple[Condition, ...]) -> Narrowed:
        """The items for which these conditions hold; the latest few answers are remembered."""
        with one_at_a_time():
            found = self._narrowed.pop(conditions, None) or self._satisfying(conditions)
            self._narrowed[conditions] = found  # the latest last
            for oldest in list(self._narrowed)[:-_MOST_NARROWED]:
                del self._narrowed[oldest]
            return found

    def nearest(
        self, queries: Words, k: int, bits: int, method: Method, conditions: tuple[Condition, ...] = ()
    ) -> tuple[Positions, NDArray[np.int32]]:
        """The k nearest items to each query, as for `SortedCodes.nearest`; fewer where there are fewer."""
        if conditions:
            narrowed = self.narrowed(conditions)
            near, distances = narrowed.codes.nearest(queries, min(k, len(narrowed.codes)), bits, method)
            return narrowed.places[near], distances
        k = min(k, len(self))
        if self.removed is None:
            return self.codes.nearest(queries, k, bits, method)
        asked = min(k + _MORE, len(self.codes))
        while True:  # until k of those found are not removed
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
        """All items within a radius of one query, as for `SortedCodes.within`."""
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
