"""An index of nested codes that is searched at any prefix length."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import count, repeat
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..codes import check_packed, pack, prefix
from ..utils.compiled import one_at_a_time
from ..utils.errors import NestKALAError
from ..utils.errors import nearest as nearest_name
from ..utils.limits import is_whole_number
from ..utils.packed_words import Words, ordered_words, packed_bytes
from ..utils.text_files import parsed_json
from .conditions import Condition, check_keys, items_that_satisfy, parse_conditions
from .contract import Hits, check_queries, check_radius, checked_shortlist
from .local.sorted_codes import Method, SortedCodes
from .slices import Positions, best, distances_to, soft_distances_to
from .storage import MAX_BITS, read_index, write_index
from .strings import Strings
from .tables import num_tables_of

_LARGE = 2**18
"""Codes from which tables are kept on the disk: fewer are scanned in a tenth of a millisecond."""
_MOST_NARROWED = 8
"""Conditions whose items are remembered."""


class PrefixIndex:
    """Packed codes, sorted, with ids and a little metadata each; searched at any prefix length.

    Codes that share a prefix lie side by side, at every length at once. A search at few bits measures distances to the
    distinct prefixes and takes whole slices. One at more looks at the codes that share substrings of 16 bits with the
    query, or nearly (`tables`), and scans where so many do that a scan is faster. All are exact. Items at equal
    distance come in the order of their full codes, then in that of being added.

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

    def __init__(
        self, words: Words, bits: int, ids: Strings, metadata: Strings, about: Mapping[str, str] | None = None
    ) -> None:
        self.bits, self.about = bits, dict(about or {})
        self._set(SortedCodes(words, bits), ids, metadata)

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
        none = np.empty((0, -(-bits // 8)), np.uint8)
        return cls(ordered_words(none), int(bits), Strings.of([]), Strings.of([]), about)

    @classmethod
    def load(cls, path: Path | str, verify: bool = True) -> Self:
        """Read an index that `save` wrote; its arrays stay on the disk until they are used.

        Args:
            path: of the file.
            verify: read all of it once, to see that it is what was written.

        Raises:
            NestKALAError: no such file, no index, of another version, or damaged.
        """
        bits, about, (words, *strings), tables = read_index(Path(path), verify)
        index = cls(words, bits, Strings(*strings[:2]), Strings(*strings[2:]), about)
        index._codes = SortedCodes(words, bits, tables)
        return index

    def save(self, path: Path | str, tables: bool = True) -> None:
        """Write one safetensors file, whole or not at all.

        Args:
            path: of the file.
            tables: keep those that make search exact without a scan, at most 12 bytes a code and 1 MB, where there are
                at least 262,144 codes of 32 bits or more. Without them they are made again when they pay.

        Raises:
            OSError: it cannot be written, for want of room as a rule.
        """
        strings = (self._ids.text, self._ids.ends, self._metadata.text, self._metadata.ends)
        kept = self._codes.all_tables() if tables and len(self) >= _LARGE and num_tables_of(self.bits) > 1 else None
        write_index(Path(path), self.bits, self.about, (self._codes.words, *strings), kept)

    @property
    def tables_bytes(self) -> int:
        """What `save` adds to the file, or to memory, for tables."""
        tables = self._codes.tables
        return tables.num_bytes if tables is not None and len(tables.starts) > 1 else 0

    def __repr__(self) -> str:
        return f"PrefixIndex({len(self):,} codes of {self.bits} bits)"

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """All codes, packed, uint8 (N, bytes), in the index's order: a copy."""
        return packed_bytes(self._codes.words, -(-self.bits // 8))

    def codes_at(self, places: Sequence[int]) -> NDArray[np.uint8]:
        """The codes at these places, 0 to below N, packed, uint8 (n, bytes)."""
        return packed_bytes(self._codes.words[list(places)], -(-self.bits // 8))

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item of this id; None where there is no such item."""
        place = int(self.ids.find([name])[0])
        if place < 0:
            return None
        metadata = parsed_json(self._metadata[place], f"the metadata of {name!r} in the index")
        return self.codes_at([place]), metadata if isinstance(metadata, dict) else {}

    @property
    def ids(self) -> Strings:
        """Of the items, in the index's order."""
        return self._ids

    @property
    def lengths(self) -> range:
        """The prefix lengths that it can be searched at: all from 1."""
        return range(1, self.bits + 1)

    def check_ids(self, ids: Iterable[str]) -> None:
        """Any string will do."""

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata, in the index's order. Raises NestKALAError for metadata that is no mapping."""
        for name, text in zip(self._ids, self._metadata, strict=True):
            metadata = parsed_json(text, f"the metadata of {name!r} in the index")
            if not isinstance(metadata, dict):
                raise NestKALAError(f"the metadata of {name!r} in the index is no mapping")
            yield name, metadata

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
        self._insert([(ordered_words(prefix(codes, self.bits)), new_ids, texts)])

    def extend(self, others: Iterable["PrefixIndex"]) -> None:
        """Add the items of other indexes, which stay as they are.

        Raises:
            NestKALAError: codes of another length, or an id that is there already or in two of them; nothing is added
                then.
        """
        parts = []
        for other in others:
            if other.bits != self.bits:
                raise NestKALAError(f"an index of {other.bits} bits cannot join one of {self.bits}")
            parts.append((other._codes.words, other._ids, other._metadata))
        self._insert(parts)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items of these ids.

        Raises:
            NestKALAError: an id that is not there; nothing is removed then.
        """
        names = list(ids)
        _checked_ids(names)
        gone = self._ids.find(names)
        for name, position in zip(names, gone.tolist(), strict=True):
            if position < 0:
                raise NestKALAError(f"there is no item {name!r} in the index{nearest_name(name, self._ids)}")
        kept = np.ones(len(self), bool)
        kept[gone] = False
        left = np.flatnonzero(kept)
        self._set(self._codes.chosen(left), self._ids.take(left), self._metadata.take(left))

    def without(self, ids: Container[str]) -> Self:
        """The items of other ids, as an index of their own."""
        left = np.array([n for n, name in enumerate(self._ids) if name not in ids], np.int64)
        kept = self._ids.take(left), self._metadata.take(left)
        return type(self)(self._codes.words[left], self.bits, *kept, self.about)

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
        bits = self.checked_bits(bits)
        shortlist = checked_shortlist(k, shortlist, rescore is not None)
        if method not in get_args(Method):
            raise NestKALAError(f"method must be auto, slices, tables or scan, not '{method}'")
        queries = self._queries(codes, bits)
        searched, places = self._narrowed(where)
        near, ranking = searched.nearest(queries, min(shortlist, len(searched)), bits, method)
        near = near if places is None else places[near]
        if rescore is not None:
            ranking = self._soft_distances(rescore, near)
        elif shortlist > k:
            ranking = distances_to(self._codes.words, self._queries(codes, self.bits), near)
        if shortlist > k or rescore is not None:
            near, ranking = best(near, ranking, k)
        return Hits(self._ids_at(near), ranking)

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
        bits = self.checked_bits(bits)
        check_radius(radius)
        queries = self._queries(codes, bits)
        searched, places = self._narrowed(where)
        ids, distances = [], []
        for n in range(len(queries)):
            near, apart = searched.within(queries[n : n + 1], min(radius, bits), bits)
            ids.append(self._ids.take(near if places is None else places[near]).as_list())
            distances.append(apart)
        return Hits(ids, distances)

    def num_prefixes(self, bits: int) -> int:
        """How many distinct prefixes of this length the codes have.

        Raises:
            NestKALAError: bits out of range.
        """
        return self._codes.num_prefixes(self.checked_bits(bits))

    def _narrowed(self, where: Sequence[str]) -> tuple[SortedCodes, Positions | None]:
        """The codes of the items for which these conditions hold, and their places; None for all."""
        conditions = tuple(parse_conditions(where))
        if not conditions:
            return self._codes, None
        with one_at_a_time():
            found = self._selected.pop(conditions, None)
            if found is None:
                needed = any(condition.key != "folder" for condition in conditions)
                items = self.items() if needed else ((name, {}) for name in self._ids)
                places, keys = items_that_satisfy(items, conditions)
                if len(self):
                    check_keys(conditions, keys)
                found = self._codes.chosen(np.array(places, np.int64)), np.array(places, np.int64)
            self._selected[conditions] = found  # the latest last
            for oldest in list(self._selected)[:-_MOST_NARROWED]:
                del self._selected[oldest]
        return found

    def _soft_distances(self, relaxed: NDArray[np.floating] | torch.Tensor, near: Positions) -> NDArray[np.float32]:
        h = np.asarray(relaxed.detach().cpu().float() if isinstance(relaxed, torch.Tensor) else relaxed)
        if h.shape != (len(near), self.bits):
            raise NestKALAError(f"rescore must be relaxed codes ({len(near)}, {self.bits}), not {h.shape}")
        words = self._codes.words
        return soft_distances_to(
            words, 8 * words.dtype.itemsize, self._queries(pack(h), self.bits), near, np.abs(h, dtype=np.float32)
        )

    def _ids_at(self, positions: Positions) -> list[list[str]]:
        names = self._ids.take(positions.ravel()).as_list()
        k = positions.shape[1]
        return [names[k * q : k * (q + 1)] for q in range(len(positions))]

    def checked_bits(self, bits: int | None) -> int:
        """This prefix length, by default the whole one. Raises NestKALAError out of 1 to the index's."""
        if bits is None:
            return self.bits
        if not is_whole_number(bits, 1, self.bits):
            raise NestKALAError(f"bits must be a whole number from 1 to {self.bits}, the index's, not {bits!r}")
        return int(bits)

    def _queries(self, codes: NDArray[np.uint8], bits: int) -> Words:
        """The first `bits` bits of packed codes as words of the index's form, the others 0."""
        check_queries(codes, bits)
        size, num_bytes = self._codes.words.itemsize, -(-bits // 8)
        whole = np.zeros((len(codes), size * self._codes.words.shape[1]), np.uint8)
        whole[:, :num_bytes] = codes[:, :num_bytes]
        whole[:, num_bytes - 1] &= 0xFF << -bits % 8 & 0xFF
        return whole.view(f">u{size}").astype(f"u{size}")

    def _insert(self, parts: Sequence[tuple[Words, Strings, Strings]]) -> None:
        words = np.concatenate([self._codes.words, *(words for words, _, _ in parts)])
        ids = Strings.concatenated([self._ids, *(ids for _, ids, _ in parts)])
        metadata = Strings.concatenated([self._metadata, *(metadata for _, _, metadata in parts)])
        if (twice := ids.duplicate()) is not None:
            raise NestKALAError(f"id {twice!r} is given twice: ids must all be different")
        order = np.lexsort(words.T[::-1])  # stable
        self._set(SortedCodes(words[order], self.bits), ids.take(order), metadata.take(order))

    def _set(self, codes: SortedCodes, ids: Strings, metadata: Strings) -> None:
        self._codes, self._ids, self._metadata = codes, ids, metadata
        self._selected: dict[tuple[Condition, ...], tuple[SortedCodes, Positions]] = {}


def _checked_ids(ids: Iterable[str]) -> Strings:
    try:
        return Strings.of(map(_checked_id, count(), ids))
    except UnicodeEncodeError as error:
        raise NestKALAError(f"id {error.object!r} is no text that can be written as UTF-8") from None


def _checked_id(place: int, name: str) -> str:
    if not isinstance(name, str):
        raise NestKALAError(f"ids must be strings, not {type(name).__name__}, as number {place} is")
    return name
