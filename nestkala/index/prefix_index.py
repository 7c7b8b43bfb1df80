"""An index of nested codes that is searched at any prefix length."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count, repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ..codes import check_packed, prefix
from ..utils.errors import NestKALAError
from ..utils.errors import nearest as nearest_name
from ..utils.limits import is_whole_number
from ..utils.packed_words import ordered_words, packed_bytes
from ..utils.text_files import parsed_json
from .contract import Hits
from .local.index_file import IndexFile
from .local.searching import checked_bits, search_segments, search_segments_radius
from .local.segment import Segment
from .local.sorted_codes import Method as Method
from .storage import MAX_BITS
from .strings import Strings

_SMALLER = 4
"""Each segment has this many times fewer items than the one before it: else they are merged.

So an item is copied a few times whatever the size of the collection, and few segments are searched.
"""


class PrefixIndex:
    """Packed codes, sorted, with ids and a little metadata each; searched at any prefix length.

    Codes that share a prefix lie side by side, at every length at once. A search at few bits measures distances to the
    distinct prefixes and takes whole slices. One at more looks at the codes that share substrings of 16 bits with the
    query, or nearly (`tables`), and scans where so many do that a scan is faster. All are exact. Items at equal
    distance come in the order of their full codes, then in that of being added.

    What is added is a further sorted array, a segment, until merging it with others pays; a search looks at each
    segment and merges what it finds, so that results are those of a single array. Its file grows likewise.

    Searching is safe from any number of threads; what changes an index must be alone.

    Make one with `build`, or read one with `load`.

    Attributes:
        bits: length of the codes.
        about: notes on the index itself, as given to `build`.

    Example:
        >>> index = PrefixIndex.build(hasher.encode(paths), ids=paths)
        >>> index.save("photos.index")
        >>> hits = index.search(hasher.encode("query.jpg"), k=20, bits=16)
        >>> hits.ids[0], hits.distances[0]
    """

    def __init__(self, segments: Iterable[Segment], bits: int, about: Mapping[str, str] | None = None) -> None:
        self.bits, self.about = bits, dict(about or {})
        self._file: IndexFile | None = None
        self._segments: tuple[Segment, ...] = ()
        self._set(segments)

    @classmethod
    def build(
        cls,
        codes: NDArray[np.uint8],
        ids: Iterable[str] | None = None,
        bits: int | None = None,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> Self:
        """Index packed codes, uint8 (N, bytes).

        Args:
            codes: as `nestkala.codes.pack` or `Hasher.encode` give them.
            ids: a string for each, all different; by default 0, 1, ...
            bits: how many bits the codes have; by default all of their bytes.
            metadata: what JSON can hold, for each.
            about: the index itself, such as which model made its codes; kept with it.

        Raises:
            NestKALAError: codes that are none, numbers that do not fit, an id given twice, or metadata that is no JSON.
        """
        check_packed(codes)
        index = cls.empty(8 * codes.shape[1] if bits is None else bits, about)
        index.add(codes, map(str, range(len(codes))) if ids is None else ids, metadata)
        return index

    @classmethod
    def empty(cls, bits: int, about: Mapping[str, str] | None = None) -> Self:
        """An index of no items yet, for codes of this many bits; `about` as for `build`.

        Raises:
            NestKALAError: bits out of 1 to `MAX_BITS`.
        """
        if not is_whole_number(bits, 1) or bits > MAX_BITS:
            raise NestKALAError(f"bits must be a whole number from 1 to {MAX_BITS}, not {bits!r}")
        return cls([], int(bits), about)

    @classmethod
    def load(cls, path: Path | str, verify: bool = True) -> Self:
        """Read an index that `save` wrote; its arrays stay on the disk until they are used.

        Args:
            path: of the file.
            verify: read all of it once, to see that it is what was written.

        Raises:
            NestKALAError: no such file, no index, of another version, or damaged.
        """
        file = IndexFile.read(Path(path), verify)
        index = cls(file.segments, file.bits, file.about)
        index._file = file
        return index

    def save(self, path: Path | str, tables: bool = True) -> None:
        """Write one file, or append what has changed to the file that the index was loaded from or saved to.

        The file is whole again whenever that pays: when appended segments were merged with the first, or when more than
        half of the file is no longer used. Whatever ends the process, the file holds what one of the saves wrote.

        Args:
            path: of the file.
            tables: keep those that make search exact without a scan, at most 12 bytes a code and 1 MB, where there are
                at least 262,144 codes of 32 bits or more. Without them they are made again when they pay.

        Raises:
            OSError: it cannot be written, for want of room as a rule.
            NestKALAError: another process has changed the file since it was loaded or saved, or is changing it now.
        """
        file = self._file if self._file is not None and self._file.is_at(Path(path)) else None
        if file is not None and file.update(self._segments, self.about, tables):
            self._segments = tuple(file.segments)
        else:
            self._set([Segment.merged(self._segments)] if self._segments else [])
            self._file = IndexFile.write(Path(path), self.bits, self.about, self._segments, tables, file)

    @property
    def tables_bytes(self) -> int:
        """What `save` adds to the file, or to memory, for tables."""
        kept = (segment.codes.tables for segment in self._segments)
        return sum(tables.num_bytes for tables in kept if tables is not None and len(tables.starts) > 1)

    def __repr__(self) -> str:
        return f"PrefixIndex({len(self):,} codes of {self.bits} bits)"

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    @property
    def codes(self) -> NDArray[np.uint8]:
        """All codes, packed, uint8 (N, bytes), in the index's order: a copy."""
        return packed_bytes(self._whole.codes.words, -(-self.bits // 8))

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item of this id; None where there is no such item."""
        for segment in self._segments:
            place = segment.find([name])
            if place[0] >= 0:
                metadata = parsed_json(segment.metadata[int(place[0])], f"the metadata of {name!r} in the index")
                code = packed_bytes(segment.codes.words[place], -(-self.bits // 8))
                return code, metadata if isinstance(metadata, dict) else {}
        return None

    @property
    def ids(self) -> Strings:
        """Of the items, in the index's order."""
        return self._whole.ids

    @property
    def lengths(self) -> range:
        """The prefix lengths that it can be searched at: all from 1."""
        return range(1, self.bits + 1)

    def check_ids(self, ids: Iterable[str]) -> None:
        """Any string will do."""

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata, in the index's order. Raises NestKALAError for metadata that is no mapping."""
        return self._whole.items()

    def local(self) -> "PrefixIndex":
        """Itself: it is in memory already."""
        return self

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items; codes, ids and metadata as for `build`.

        Raises:
            NestKALAError: as `build` does, or an id that is there already; nothing is added then.
        """
        check_packed(codes)
        new_ids = _checked_ids(ids)
        try:
            texts = Strings.of(
                repeat("{}", len(codes))
                if metadata is None
                else (json.dumps(dict(m), allow_nan=False) for m in metadata)
            )
        except (TypeError, ValueError) as error:
            raise NestKALAError(f"metadata must be what JSON can hold: {error}") from error
        if not len(new_ids) == len(texts) == len(codes):
            raise NestKALAError(f"got {len(codes)} codes, {len(new_ids)} ids and {len(texts)} metadata")
        self._insert([Segment.of(ordered_words(prefix(codes, self.bits)), self.bits, new_ids, texts)])

    def extend(self, others: Iterable["PrefixIndex"]) -> None:
        """Add the items of other indexes, which stay as they are.

        Raises:
            NestKALAError: codes of another length, or an id that is there already or in two of them; nothing is added
                then.
        """
        parts: list[Segment] = []
        for other in others:
            if other.bits != self.bits:
                raise NestKALAError(f"an index of {other.bits} bits cannot join one of {self.bits}")
            parts += other._segments
        self._insert(parts)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items of these ids.

        Raises:
            NestKALAError: an id that is not there; nothing is removed then.
        """
        names = list(ids)
        _checked_ids(names)
        found = [segment.find(names) for segment in self._segments]
        there = np.any([places >= 0 for places in found], axis=0) if found else np.zeros(len(names), bool)
        for name in (name for name, known in zip(names, there, strict=True) if not known):
            raise NestKALAError(f"there is no item {name!r} in the index{nearest_name(name, self.ids)}")
        if names:
            pairs = zip(self._segments, found, strict=True)
            self._set(segment.without(places[places >= 0]) for segment, places in pairs)

    def without(self, ids: Container[str]) -> Self:
        """The items of other ids, as an index of their own."""
        left = (
            segment.without(np.array([n for n, name in enumerate(segment.ids) if name in ids], np.int64))
            for segment in self._segments
        )
        return type(self)(left, self.bits, self.about)

    def search(
        self,
        codes: NDArray[np.uint8],
        k: int = 10,
        bits: int | None = None,
        *,
        shortlist: int | None = None,
        rescore: NDArray[np.floating] | torch.Tensor | None = None,
        method: Method = "auto",
        where: Sequence[str] = (),
    ) -> Hits:
        """The k nearest items to each query.

        Args:
            codes: packed queries, uint8 (Q, bytes), of `bits` bits or more.
            k: how many, 1 or more; fewer come where the index has fewer.
            bits: prefix length that is compared, 1 to the index's, which is the default.
            shortlist: coarse to fine: so many items, k or more, are found at `bits`, and re-ranked at full length.
            rescore: relaxed queries (Q, L), as `Hasher.relaxed` gives them: the shortlist, by default of 10 k, is
                re-ranked by what the bits that differ cost, each the size of the query's relaxed bit. That parts the
                many ties of short codes.
            method: "auto", which chooses by cost, or one of "slices", "tables" (made if need be) and "scan".
            where: conditions on ids and metadata, such as "folder=2019/italy" or "date>=2024-05", as for
                `nestkala.index.conditions.Condition`. Only items for which all hold are searched. Which those are is
                found out once, by reading all metadata, and remembered for the latest few `where`.

        Raises:
            NestKALAError: an argument out of its range, queries that are shorter than `bits`, or a condition on a key
                that no item has.
        """
        return search_segments(self._segments, self.bits, codes, k, bits, shortlist, rescore, method, where)

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items whose first `bits` bits differ from a query's in at most `radius`, by distance.

        Args:
            codes: packed queries, uint8 (Q, bytes), of `bits` bits or more.
            radius: 0 or more.
            bits: prefix length that is compared, 1 to the index's, which is the default.
            where: conditions on the items, as for `search`.

        Raises:
            NestKALAError: an argument out of its range, queries that are shorter than `bits`, or a condition on a key
                that no item has.
        """
        return search_segments_radius(self._segments, self.bits, codes, radius, bits, where)

    def num_prefixes(self, bits: int) -> int:
        """How many distinct prefixes of this length the codes have.

        Raises:
            NestKALAError: bits out of range.
        """
        return self._whole.codes.num_prefixes(self.checked_bits(bits))

    def checked_bits(self, bits: int | None) -> int:
        """This prefix length, by default the whole one. Raises NestKALAError out of 1 to the index's."""
        return checked_bits(bits, self.bits)

    @cached_property
    def _whole(self) -> Segment:
        """All items as one segment."""
        return Segment.merged(self._segments) if self._segments else Segment.empty(self.bits)

    def _insert(self, new: Sequence[Segment]) -> None:
        if not any(map(len, new)):
            return
        segment = Segment.merged(new)
        twice = segment.ids.duplicate()
        if twice is None and self._segments:
            names = segment.ids.as_list()
            known = np.any([old.find(names) >= 0 for old in self._segments], axis=0)
            twice = names[int(known.argmax())] if known.any() else None
        if twice is not None:
            raise NestKALAError(f"id {twice!r} is given twice: ids must all be different")
        self._set([*self._segments, segment])

    def _set(self, segments: Iterable[Segment]) -> None:
        """Take these for the items, merged where it pays, all that comes after a merged one with it."""
        left = [segment for segment in segments if len(segment.codes)]
        begin = next((n for n, segment in enumerate(left) if segment.num_removed > len(segment)), len(left))
        left[begin:] = [Segment.merged(left[begin:])] if begin < len(left) else []
        if left and not len(left[-1]):
            left.pop()
        begin = len(left) - 1
        while begin > 0 and len(left[begin - 1]) < _SMALLER * sum(map(len, left[begin:])):
            begin -= 1
        if begin < len(left) - 1:
            left[begin:] = [Segment.merged(left[begin:])]
        self._segments = tuple(left)
        self.__dict__.pop("_whole", None)


def _checked_ids(ids: Iterable[str]) -> Strings:
    try:
        return Strings.of(map(_checked_id, count(), ids))
    except UnicodeEncodeError as error:
        raise NestKALAError(f"id {error.object!r} is no text that can be written as UTF-8") from None


def _checked_id(place: int, name: str) -> str:
    if not isinstance(name, str):
        raise NestKALAError(f"ids must be strings, not {type(name).__name__}, as number {place} is")
    return name
