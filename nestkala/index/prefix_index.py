"""An index of nested codes that can be searched at any prefix length."""

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
"""Each segment must have this many times fewer items than the one before it; otherwise they are merged.

This way, an item is copied only a few times whatever the size of the collection, and searches visit few segments.
"""


class PrefixIndex:
    """Sorted packed codes with ids and a little metadata, searched at any prefix length.

    Codes that share a prefix are adjacent, at every length at once. A search at few bits measures distances to the
    distinct prefixes and takes whole slices. A search at more bits looks up codes that share or nearly share 16-bit
    substrings with the query (`tables`), and scans all codes when that is faster. All methods are exact. Items at equal
    distance come in the order of their full codes, then in the order in which they were added.

    Added items form a new sorted array, a segment, until merging it with others pays off. A search visits each segment
    and merges the results, which are the same as for a single array. The index file grows in the same way.

    Searching is thread-safe; changes to an index must not overlap with anything else.

    Create one with `build`, or read one with `load`.

    Attributes:
        bits: code length.
        about: notes on the index, as given to `build`.

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
            codes: codes from `nestkala.codes.pack` or `Hasher.encode`.
            ids: one string per code, all different (default: 0, 1, ...).
            bits: number of bits in each code (default: all bits of the bytes).
            metadata: one mapping of JSON values per code.
            about: notes on the index, such as which model made its codes, stored with it.

        Raises:
            NestKALAError: the codes are invalid, the numbers of items differ, an id is given twice, or metadata cannot
                be written as JSON.
        """
        check_packed(codes)
        index = cls.empty(8 * codes.shape[1] if bits is None else bits, about)
        index.add(codes, map(str, range(len(codes))) if ids is None else ids, metadata)
        return index

    @classmethod
    def empty(cls, bits: int, about: Mapping[str, str] | None = None) -> Self:
        """An empty index for codes of this many bits; `about` as for `build`.

        Raises:
            NestKALAError: bits is not 1 to `MAX_BITS`.
        """
        if not is_whole_number(bits, 1) or bits > MAX_BITS:
            raise NestKALAError(f"bits must be a whole number from 1 to {MAX_BITS}, not {bits!r}")
        return cls([], int(bits), about)

    @classmethod
    def load(cls, path: Path | str, verify: bool = True) -> Self:
        """Load an index written by `save`. Its arrays stay on disk until they are used.

        Args:
            path: file to read.
            verify: read the whole file once to verify its checksum.

        Raises:
            NestKALAError: the file does not exist, is not an index, has another version, or is damaged.
        """
        file = IndexFile.read(Path(path), verify)
        index = cls(file.segments, file.bits, file.about)
        index._file = file
        return index

    def save(self, path: Path | str, tables: bool = True) -> None:
        """Write one file, or append the changes to the file that the index was loaded from or saved to.

        The file is rewritten when that pays off: when appended segments were merged with the first one, or when more
        than half of the file is unused. If the process is killed at any time, the file holds the state of one of the
        saves.

        Args:
            path: file to write.
            tables: also save the tables for exact search without a scan, if there are at least 262,144 codes of 32 bits
                or more; they take at most 12 bytes per code plus 1 MB. Otherwise, they are built when they pay off.

        Raises:
            OSError: the file cannot be written, usually because the disk is full.
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
        """Size of the tables in the file or in memory, in bytes."""
        kept = (segment.codes.tables for segment in self._segments)
        return sum(tables.num_bytes for tables in kept if tables is not None and len(tables.starts) > 1)

    def __repr__(self) -> str:
        return f"PrefixIndex({len(self):,} codes of {self.bits} bits)"

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    @property
    def codes(self) -> NDArray[np.uint8]:
        """A copy of all packed codes, uint8 (N, bytes), in the index's order."""
        return packed_bytes(self._whole.codes.words, -(-self.bits // 8))

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item with this id, or None."""
        for segment in self._segments:
            place = segment.find([name])
            if place[0] >= 0:
                metadata = parsed_json(segment.metadata[int(place[0])], f"the metadata of {name!r} in the index")
                code = packed_bytes(segment.codes.words[place], -(-self.bits // 8))
                return code, metadata if isinstance(metadata, dict) else {}
        return None

    @property
    def ids(self) -> Strings:
        """The ids of the items, in the index's order."""
        return self._whole.ids

    @property
    def lengths(self) -> range:
        """The prefix lengths that can be searched: all from 1 to the code length."""
        return range(1, self.bits + 1)

    def check_ids(self, ids: Iterable[str]) -> None:
        """Do nothing: any string can be an id."""

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata, in the index's order. Raises NestKALAError if metadata is not a mapping."""
        return self._whole.items()

    def local(self) -> "PrefixIndex":
        """The index itself, which is already in memory."""
        return self

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items; codes, ids and metadata as for `build`.

        Raises:
            NestKALAError: as for `build`, or an id already exists; nothing is added then.
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
            raise NestKALAError(f"metadata must be JSON values: {error}") from error
        if not len(new_ids) == len(texts) == len(codes):
            raise NestKALAError(f"got {len(codes)} codes, {len(new_ids)} ids and {len(texts)} metadata")
        self._insert([Segment.of(ordered_words(prefix(codes, self.bits)), self.bits, new_ids, texts)])

    def extend(self, others: Iterable["PrefixIndex"]) -> None:
        """Add the items of other indexes, which are not changed.

        Raises:
            NestKALAError: the code length differs, or an id already exists or occurs twice; nothing is added then.
        """
        parts: list[Segment] = []
        for other in others:
            if other.bits != self.bits:
                raise NestKALAError(f"cannot add an index of {other.bits} bits to one of {self.bits}")
            parts += other._segments
        self._insert(parts)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items with these ids.

        Raises:
            NestKALAError: an id does not exist; nothing is removed then.
        """
        names = list(ids)
        _checked_ids(names)
        found = [segment.find(names) for segment in self._segments]
        there = np.any([places >= 0 for places in found], axis=0) if found else np.zeros(len(names), bool)
        for name in (name for name, known in zip(names, there, strict=True) if not known):
            raise NestKALAError(f"no item {name!r} in the index{nearest_name(name, self.ids)}")
        if names:
            pairs = zip(self._segments, found, strict=True)
            self._set(segment.without(places[places >= 0]) for segment, places in pairs)

    def without(self, ids: Container[str]) -> Self:
        """A new index of all items except those with these ids."""
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
            codes: packed queries, uint8 (Q, bytes), of at least `bits` bits.
            k: how many results to return, 1 or more; fewer if the index has fewer items.
            bits: prefix length to compare, 1 to the code length (default: the code length).
            shortlist: coarse-to-fine search: find this many items, at least k, at `bits`, then re-rank them by their
                full codes.
            rescore: relaxed queries (Q, L) from `Hasher.relaxed`. The shortlist (default: 10 k) is re-ranked by the
                cost of differing bits, where each costs the magnitude of the query's relaxed bit. This breaks the many
                ties between short codes.
            method: "auto" (choose by cost), "slices", "tables" (built if needed) or "scan".
            where: conditions on ids and metadata, such as "folder=2019/italy" or "date>=2024-05"; see
                `nestkala.index.conditions.Condition`. Only items that satisfy all of them are searched. Matching items
                are found once by reading all metadata, and remembered for the latest few `where`.

        Raises:
            NestKALAError: an argument is out of range, queries are shorter than `bits`, or a condition has a key that
                no item has.
        """
        return search_segments(self._segments, self.bits, codes, k, bits, shortlist, rescore, method, where)

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items whose first `bits` bits differ from a query's in at most `radius` bits, nearest first.

        Args:
            codes: packed queries, uint8 (Q, bytes), of at least `bits` bits.
            radius: largest distance, 0 or more.
            bits: prefix length to compare, 1 to the code length (default: the code length).
            where: conditions on the items, as for `search`.

        Raises:
            NestKALAError: an argument is out of range, queries are shorter than `bits`, or a condition has a key that
                no item has.
        """
        return search_segments_radius(self._segments, self.bits, codes, radius, bits, where)

    def num_prefixes(self, bits: int) -> int:
        """How many distinct prefixes of this length the codes have.

        Raises:
            NestKALAError: bits is out of range.
        """
        return self._whole.codes.num_prefixes(self.checked_bits(bits))

    def checked_bits(self, bits: int | None) -> int:
        """The prefix length (default: the full code). Raises NestKALAError unless it is 1 to the code length."""
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
        """Replace the segments, merging where it pays off; a merged segment takes in all that follow it."""
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
        raise NestKALAError(f"id {error.object!r} cannot be written as UTF-8") from None


def _checked_id(place: int, name: str) -> str:
    if not isinstance(name, str):
        raise NestKALAError(f"ids must be strings, but id number {place} is {type(name).__name__}")
    return name
