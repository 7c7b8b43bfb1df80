"""An index in a PostgreSQL table."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from threading import RLock
from typing import Any, Self

import numpy as np
import psycopg
import torch
from numpy.typing import NDArray
from psycopg import sql

from ...codes import pack
from ...utils.errors import NestKALAError, nearest
from ...utils.limits import is_whole_number
from ...utils.packed_words import ordered_words
from ...utils.text_files import parsed_json
from ...utils.versions import check_version
from ..conditions import Condition, check_keys, parse_conditions
from ..contract import Hits, check_queries, check_radius, checked_relaxed, checked_shortlist
from ..local.searching import checked_bits
from ..prefix_index import PrefixIndex
from ..slices import best, soft_distances_to
from .address import Address
from .conditions import all_hold
from .statements import PROBES, ball, ball_radius, by_ranges, by_scan, ranked, within
from .table import MAX_BITS, MAX_ID_BYTES, check_partitions, definition
from .values import bit_strings, is_text, packed

_FORMAT, _VERSION = "nestkala-index", 1
_LONGEST_BY_RANGES = 24
"""Up to this many bits, the nearest codes share nearly all of a prefix, so range lookups pay off."""
_ROWS = 100_000
_MOST_SUGGESTED = 2001

Row = tuple[Any, ...]


class PostgresIndex:
    """Searches like a `PrefixIndex`, with the same ids, distances and order at every length.

    Adding an existing id replaces its item, which then counts as added last. Every change is a transaction: other
    processes can search meanwhile and see the index as before or after it, and a change that fails or is killed has no
    effect. Changes wait for one another. Several threads may use the index; they wait for one another, too.

    Create one with `create`, or open one with `open`.

    Attributes:
        bits: code length.
        about: notes on the index.
    """

    def __init__(
        self, address: Address, connection: psycopg.Connection[Row], bits: int, about: Mapping[str, str]
    ) -> None:
        self._address, self._connection, self._lock = address, connection, RLock()
        self.bits, self.about = bits, dict(about)

    @classmethod
    def create(
        cls, address: str, bits: int, about: Mapping[str, str] | None = None, partitions: int | None = None
    ) -> Self:
        """Create a new table.

        Args:
            address: postgresql://USER@HOST:PORT/DATABASE, followed by "#table" or "#schema.table" (default:
                #nestkala).
            bits: code length.
            about: notes on the index, stored as the table's comment.
            partitions: number of tables, a power of two, to divide the codes into by their first bits.

        Raises:
            NestKALAError: the address is invalid, the server does not answer, permission is denied, the table exists,
                or a number is out of range.
        """
        where = Address.parse(address)
        if not is_whole_number(bits, 1, MAX_BITS):
            raise NestKALAError(f"bits must be a whole number from 1 to {MAX_BITS}, not {bits!r}")
        check_partitions(partitions, bits)
        description = {"format": _FORMAT, "version": _VERSION, "bits": int(bits), "about": dict(about or {})}
        index = cls(where, where.connect(), int(bits), about or {})
        try:
            with index._transaction() as cursor:
                for statement in definition(where, int(bits), partitions, json.dumps(description)):
                    cursor.execute(statement)
        except NestKALAError as error:
            index.close()
            if isinstance(error.__cause__, psycopg.errors.DuplicateTable):
                raise NestKALAError(f"the table {where.table} already exists: {where.shown}") from None
            raise
        return index

    @classmethod
    def open(cls, address: str) -> Self | None:
        """Open the table at an address, as for `create`; None if there is none.

        Raises:
            NestKALAError: the address is invalid, the server does not answer, permission is denied, or the table is not
                an index.
        """
        where = Address.parse(address)
        connection = where.connect()
        with where.explained():
            name = where.identifier.as_string(connection)
            found = connection.execute("SELECT obj_description(to_regclass(%s), 'pg_class')", [name]).fetchone()
            is_there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
        if is_there != (True,):
            connection.close()
            return None
        try:
            description = json.loads(found[0] if found else "")
            if description["format"] != _FORMAT:
                raise ValueError
            check_version(f"the table {where.table} at {where.shown}", description.get("version"), _VERSION)
            bits, about = description["bits"], description["about"]
            if not is_whole_number(bits, 1, MAX_BITS) or not all(isinstance(said, str) for said in about.values()):
                raise ValueError
        except NestKALAError:
            connection.close()
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            connection.close()
            raise NestKALAError(f"the table {where.table} at {where.shown} is not a NestKALA index") from None
        return cls(where, connection, bits, about)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"PostgresIndex({self._address.shown!r}, {self.bits} bits)"

    def __len__(self) -> int:
        with self._transaction() as cursor:
            cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(self._table))
            (count,) = cursor.fetchone() or (0,)
        return int(count)

    @property
    def lengths(self) -> range:
        """The prefix lengths that can be searched: all from 1 to the code length."""
        return range(1, self.bits + 1)

    def check_ids(self, ids: Iterable[str]) -> None:
        """Raise NestKALAError if one is not UTF-8, contains a NUL, or is longer than `MAX_ID_BYTES`."""
        for name in ids:
            if not is_text(name):
                raise NestKALAError(f"PostgreSQL holds only UTF-8 text without NUL, not {name!r}")
            if len(name.encode()) > MAX_ID_BYTES:
                raise NestKALAError(
                    f"ids in PostgreSQL can have at most {MAX_ID_BYTES} bytes: {name[:50]!r}... has more"
                )

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata in one state of the index, by code, then in the order of insertion."""
        query = sql.SQL("SELECT id, metadata FROM {} ORDER BY code, number").format(self._table)
        with self._address.explained(), self._address.connect() as connection, connection.transaction():
            rows = connection.cursor("items")
            for name, metadata in rows.execute(query):
                if not isinstance(metadata, dict):
                    raise NestKALAError(f"the metadata of {name!r} in the index is not a mapping")
                yield name, metadata

    def local(self) -> PrefixIndex:
        """The same items as an in-memory index."""
        index = PrefixIndex.empty(self.bits, self.about)
        query = sql.SQL("SELECT id, bit_send(code), metadata::text FROM {} ORDER BY code, number").format(self._table)
        with self._transaction() as cursor, cursor.connection.cursor("codes") as rows:
            rows.itersize = _ROWS // 10
            rows.execute(query)
            parts = []
            while some := list(islice(rows, _ROWS)):
                names, codes, texts = zip(*some, strict=True)
                metadata = [parsed_json(text, f"the metadata of {n!r}") for n, text in zip(names, texts, strict=True)]
                parts.append(PrefixIndex.build(packed(codes), names, self.bits, metadata))
        index.extend(parts)
        return index

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item with this id, or None."""
        if not is_text(name):
            return None
        query = sql.SQL("SELECT bit_send(code), metadata::text FROM {} WHERE id = %s").format(self._table)
        with self._transaction() as cursor:
            cursor.execute(query, [name])
            row = cursor.fetchone()
        if row is None:
            return None
        metadata = parsed_json(row[1], f"the metadata of {name!r} in the index")
        return packed(row[:1]), metadata if isinstance(metadata, dict) else {}

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items, or replace those with the same ids; arguments as for `PrefixIndex.add`.

        Raises:
            NestKALAError: as for `PrefixIndex.build`, or PostgreSQL cannot hold an item; nothing is added then.
        """
        self.extend([PrefixIndex.build(codes, ids, self.bits, metadata)])

    def extend(self, others: Iterable[PrefixIndex]) -> None:
        """Add the items of other indexes, or replace those with the same ids, all in one transaction.

        Raises:
            NestKALAError: the code length differs, an id occurs twice, or PostgreSQL cannot hold an item; nothing is
                added then.
        """
        incoming = sql.SQL(
            'CREATE TEMPORARY TABLE incoming (id text COLLATE "C", code bit({bits}), metadata jsonb, '
            "number bigint GENERATED ALWAYS AS IDENTITY) ON COMMIT DROP"
        )
        with self._writing() as cursor:
            cursor.execute(incoming.format(bits=sql.Literal(self.bits)))
            with cursor.copy("COPY pg_temp.incoming (id, code, metadata) FROM STDIN") as copy:
                for other in others:
                    if other.bits != self.bits:
                        raise NestKALAError(f"cannot add an index of {other.bits} bits to one of {self.bits}")
                    self.check_ids(other.ids)
                    for code, (name, metadata) in zip(bit_strings(other.codes, self.bits), other.items(), strict=True):
                        copy.write_row((name, code, json.dumps(metadata)))
            cursor.execute("ANALYZE pg_temp.incoming")
            cursor.execute("SELECT id FROM pg_temp.incoming GROUP BY id HAVING count(*) > 1 LIMIT 1")
            if twice := cursor.fetchone():
                raise NestKALAError(f"id {twice[0]!r} is given twice: ids must all be different")
            for statement in (
                "DELETE FROM {table} AS old USING pg_temp.incoming AS new WHERE old.id = new.id",
                "INSERT INTO {table} (id, code, metadata) SELECT id, code, metadata FROM pg_temp.incoming "
                "ORDER BY number",
            ):
                cursor.execute(sql.SQL(statement).format(table=self._table))

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items with these ids.

        Raises:
            NestKALAError: an id does not exist; nothing is removed then.
        """
        names = list(ids)
        with self._writing() as cursor:
            deletion = sql.SQL("DELETE FROM {} WHERE id = ANY(%s) RETURNING id").format(self._table)
            cursor.execute(deletion, [[name for name in names if is_text(name)]])
            gone = {name for (name,) in cursor}
            absent = next((name for name in names if name not in gone), None)
            if absent is not None:
                cursor.execute(sql.SQL("SELECT id FROM {} LIMIT {}").format(self._table, sql.Literal(_MOST_SUGGESTED)))
                known = [*gone, *(name for (name,) in cursor)]
                raise NestKALAError(f"no item {absent!r} in the index{nearest(absent, known)}")

    def search(
        self,
        codes: NDArray[np.uint8],
        k: int = 10,
        bits: int | None = None,
        *,
        shortlist: int | None = None,
        rescore: NDArray[np.floating] | torch.Tensor | None = None,
        where: Sequence[str] = (),
    ) -> Hits:
        """The k nearest items to each query; arguments as for `PrefixIndex.search`.

        Raises:
            NestKALAError: as there, or the database does not answer.
        """
        bits = checked_bits(bits, self.bits)
        shortlist = checked_shortlist(k, shortlist, rescore is not None)
        check_queries(codes, self.bits if shortlist > k else bits)
        conditions = parse_conditions(where)
        h = None if rescore is None else checked_relaxed(rescore, len(codes), self.bits)
        with self._transaction() as cursor:
            self._check_keys(cursor, conditions)
            found = [self._nearest(cursor, code, bits, k, shortlist, h is not None, conditions) for code in codes]
        if h is not None:
            rescored = [_rescored(rows, h[q : q + 1], k) for q, rows in enumerate(found)]
            return Hits([ids for ids, _ in rescored], _stacked([costs for _, costs in rescored], np.float32))
        distances = _stacked([[row[1] for row in rows] for rows in found], np.int32)
        return Hits([[row[0] for row in rows] for rows in found], distances)

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items within a distance of each query; arguments as for `PrefixIndex.search_radius`.

        Raises:
            NestKALAError: as there, or the database does not answer.
        """
        bits = checked_bits(bits, self.bits)
        check_radius(radius)
        check_queries(codes, bits)
        conditions = parse_conditions(where)
        radius = min(radius, bits)
        if radius <= ball_radius(bits, max(PROBES)) and not conditions:
            statement = by_ranges(self._table, bits, self.bits, limited=False)
            parameters: dict[str, Any] = {"ball": ball(bits, radius)}
        else:
            those, parameters = all_hold(conditions)
            statement = within(self._table, bits, self.bits, those)
            parameters["radius"] = radius
        found = []
        with self._transaction() as cursor:
            self._check_keys(cursor, conditions)
            for prefix in bit_strings(codes, bits):
                cursor.execute(statement, parameters | {"prefix": prefix})
                found.append(cursor.fetchall())
        distances = [np.array([row[3] for row in rows], np.int32) for rows in found]
        return Hits([[row[0] for row in rows] for rows in found], distances)

    def _nearest(
        self,
        cursor: psycopg.Cursor[Row],
        code: NDArray[np.uint8],
        bits: int,
        k: int,
        shortlist: int,
        with_codes: bool,
        conditions: Sequence[Condition],
    ) -> list[Row]:
        """The id, distance and optionally code of the k nearest items, or of the whole shortlist if with codes."""
        whole = shortlist > k and not with_codes
        those, parameters = all_hold(conditions)
        (prefix,) = bit_strings(code[None], bits)
        parameters |= {"prefix": prefix, "most": shortlist, "k": shortlist if with_codes else k}
        if whole:
            (parameters["whole"],) = bit_strings(code[None], self.bits)
        if bits <= _LONGEST_BY_RANGES and not conditions:
            statement = ranked(by_ranges(self._table, bits, self.bits), self.bits, whole, with_codes)
            for radius in sorted({ball_radius(bits, probes) for probes in PROBES}):
                rows = cursor.execute(statement, parameters | {"ball": ball(bits, radius)}).fetchall()
                if radius == bits or (rows and rows[0][3] == shortlist):
                    return rows
        statement = ranked(by_scan(self._table, bits, self.bits, those), self.bits, whole, with_codes)
        return cursor.execute(statement, parameters).fetchall()

    def _check_keys(self, cursor: psycopg.Cursor[Row], conditions: Sequence[Condition]) -> None:
        """Raise NestKALAError for a condition on a key that no item has."""
        for condition in conditions:
            if not is_text(condition.key + condition.value):
                raise NestKALAError(
                    f"PostgreSQL holds only UTF-8 text without NUL, not {condition.key + condition.value!r}"
                )
            if condition.key == "folder":
                continue
            exists = sql.SQL("SELECT FROM {} WHERE jsonb_exists(metadata, %s) LIMIT 1").format(self._table)
            if cursor.execute(exists, [condition.key]).fetchone() is None and len(self):
                keys = sql.SQL("SELECT DISTINCT jsonb_object_keys(metadata) FROM {}").format(self._table)
                check_keys([condition], (key for (key,) in cursor.execute(keys)))

    @property
    def _table(self) -> sql.Identifier:
        return self._address.identifier

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Row]]:
        """A transaction that sees one state of the database; writes are committed unless an error is raised."""
        with self._lock, self._address.explained():
            if self._connection.closed:  # for example, the server was restarted
                self._connection = self._address.connect()
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor

    @contextmanager
    def _writing(self) -> Iterator[psycopg.Cursor[Row]]:
        """A transaction that waits until no other is changing the index. Readers do not wait."""
        with self._transaction() as cursor:
            # Before anything is read, so that this transaction sees all earlier changes.
            cursor.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self._table))
            yield cursor


def _rescored(rows: Sequence[Row], h: NDArray[np.floating], k: int) -> tuple[list[str], NDArray[np.float32]]:
    """The k ids of a shortlist with the lowest costs of differing from the relaxed query (1, L), and the costs."""
    if not rows:
        return [], np.empty(0, np.float32)
    words = ordered_words(packed(row[2] for row in rows))
    places = np.arange(len(rows))[None]
    costs = soft_distances_to(
        words, 8 * words.dtype.itemsize, ordered_words(pack(h)), places, np.abs(h, dtype=np.float32)
    )
    places, costs = best(places, costs, k)
    return [rows[place][0] for place in places[0]], costs[0]


def _stacked(ranked: Sequence[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """The distances of each query's k items as one array (Q, k)."""
    return np.array(ranked, dtype).reshape(len(ranked), len(ranked[0]) if ranked else 0)
