"""An index in Milvus: a server, or a Milvus Lite file (pip install "nestkala[milvus]")."""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..codes import prefix
from ..utils.errors import NestKALAError, one_line
from ..utils.versions import check_version
from .conditions import check_keys, items_that_satisfy, parse_conditions
from .contract import Hits, check_queries, check_radius, checked_shortlist
from .prefix_index import PrefixIndex
from .strings import as_text

if TYPE_CHECKING:
    from pymilvus import MilvusClient

COLLECTION = "nestkala"
"""Default collection if an address names none."""

_FORMAT, _VERSION = "nestkala-index", 1
_ROWS = 1000
_MOST = 16_384
"""Maximum number of results that Milvus returns for a query."""
_SECONDS = 60
"""Time limit for an answer; otherwise the client retries for minutes."""


class MilvusIndex:
    """Searches like a `PrefixIndex`, at the trained lengths, including the full one.

    Every length is a field of binary vectors with Hamming distance, padded to whole bytes. Items at equal distance come
    in Milvus's order. Adding an existing id replaces its item.

    Create one with `create`, or open one with `open`.

    Attributes:
        bits: code length.
        lengths: prefix lengths that can be searched.
        about: notes on the index.
    """

    def __init__(self, client: "MilvusClient", collection: str, lengths: Sequence[int], about: dict[str, str]) -> None:
        self._client, self._collection = client, collection
        self.lengths, self.bits, self.about = tuple(lengths), max(lengths), about

    @classmethod
    def create(cls, address: str, lengths: Sequence[int], about: Mapping[str, str] | None = None) -> Self:
        """Create a new collection.

        Args:
            address: URI of a server, or path of a Milvus Lite file (.db), optionally followed by "#COLLECTION".
            lengths: prefix lengths to search at; the longest is the code length.
            about: notes on the index, stored with it.

        Raises:
            NestKALAError: pymilvus is not installed, Milvus does not answer, the collection exists, or there are more
                lengths than the server allows vector fields (proxy.maxVectorFieldNum, 4 by default).
        """
        from pymilvus import DataType

        client, collection = _connected(address)
        with _explained(address):
            if client.has_collection(collection):
                raise NestKALAError(f"{address} already has a collection '{collection}'")
            description = {"format": _FORMAT, "version": _VERSION, "lengths": list(lengths), "about": dict(about or {})}
            schema = client.create_schema(auto_id=False, description=json.dumps(description))
            # Not the id itself: Milvus Lite fails on quotes and line breaks in a primary key.
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=32)
            schema.add_field("id", DataType.VARCHAR, max_length=65_535)
            # In addition to the vectors: Milvus Lite does not return binary ones.
            schema.add_field("code", DataType.VARCHAR, max_length=2 * _num_bytes(max(lengths)))
            schema.add_field("metadata", DataType.JSON)
            indexes = client.prepare_index_params()
            for bits in lengths:
                schema.add_field(_field(bits), DataType.BINARY_VECTOR, dim=8 * _num_bytes(bits))
                indexes.add_index(_field(bits), index_type="BIN_FLAT", metric_type="HAMMING")
            client.create_collection(
                collection, schema=schema, index_params=indexes, consistency_level="Strong", timeout=_SECONDS
            )
        return cls(client, collection, sorted(lengths), dict(about or {}))

    @classmethod
    def open(cls, address: str) -> Self | None:
        """Open the collection at an address, as for `create`; None if there is none.

        Raises:
            NestKALAError: pymilvus is not installed, Milvus does not answer, or the collection is not an index.
        """
        uri = address.partition("#")[0]
        if "://" not in uri and not Path(uri).exists():  # Milvus Lite would create it
            return None
        client, collection = _connected(address)
        with _explained(address):
            if not client.has_collection(collection):
                return None
            text = client.describe_collection(collection)["description"]
            client.load_collection(collection, timeout=_SECONDS)
        try:
            description = json.loads(text)
            if description["format"] != _FORMAT:
                raise ValueError
            lengths, about = description["lengths"], description["about"]
        except (ValueError, KeyError, TypeError):
            raise NestKALAError(f"the collection '{collection}' at {address} is not a NestKALA index") from None
        check_version(f"the collection '{collection}' at {address}", description.get("version"), _VERSION)
        return cls(client, collection, lengths, about)

    def close(self) -> None:
        """Close the connection to the server or file."""
        self._client.close()

    def __len__(self) -> int:
        with _explained(self._collection):
            return int(self._client.query(self._collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def check_ids(self, ids: Iterable[str]) -> None:
        """Raise NestKALAError if one of them is not UTF-8."""
        for name in ids:
            if name != as_text(name):
                raise NestKALAError(f"Milvus holds only UTF-8 text, not {name!r}")

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata, in Milvus's order."""
        return ((row["id"], row["metadata"]) for row in self._rows("id", "metadata"))

    def local(self) -> PrefixIndex:
        """The same items as an in-memory index."""
        return _as_index(list(self._rows("id", "code", "metadata")), self.bits, self.about)

    def _rows(self, *fields: str) -> Iterator[dict[str, Any]]:
        if not len(self):
            return
        with _explained(self._collection):
            found = self._client.query_iterator(
                self._collection, batch_size=_ROWS, output_fields=[*fields], timeout=_SECONDS
            )
            while rows := found.next():
                yield from rows
            found.close()

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item with this id, or None."""
        with _explained(self._collection):
            rows = self._client.get(
                self._collection, ids=[_key(name)], output_fields=["code", "metadata"], timeout=_SECONDS
            )
        return (np.frombuffer(bytes.fromhex(rows[0]["code"]), np.uint8)[None], rows[0]["metadata"]) if rows else None

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items, or replace those with the same ids; arguments as for `PrefixIndex.add`.

        Raises:
            NestKALAError: the codes are invalid or too short, the numbers of items differ, or an id is not UTF-8.
        """
        others = PrefixIndex.build(codes, ids, self.bits, metadata)
        self.extend([others])

    def extend(self, others: Iterable[PrefixIndex]) -> None:
        """Add the items of other indexes, or replace those with the same ids.

        Raises:
            NestKALAError: the code length differs, or an id is not UTF-8.
        """
        for other in others:
            if other.bits != self.bits:
                raise NestKALAError(f"cannot add an index of {other.bits} bits to one of {self.bits}")
            self.check_ids(other.ids)
            codes = other.codes
            prefixes = {_field(bits): prefix(codes, bits) for bits in self.lengths}
            rows = (
                {
                    "key": _key(name),
                    "id": name,
                    "code": codes[n].tobytes().hex(),
                    "metadata": metadata,
                    **{field: packed[n].tobytes() for field, packed in prefixes.items()},
                }
                for n, (name, metadata) in enumerate(other.items())
            )
            with _explained(self._collection):
                while some := list(islice(rows, _ROWS)):
                    self._client.upsert(self._collection, some, timeout=_SECONDS)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items with these ids, if present."""
        keys = map(_key, ids)
        with _explained(self._collection):
            while some := list(islice(keys, _ROWS)):
                self._client.delete(self._collection, ids=some, timeout=_SECONDS)

    def search(
        self,
        codes: NDArray[np.uint8],
        k: int = 10,
        bits: int | None = None,
        *,
        shortlist: int | None = None,
        rescore: NDArray[np.floating] | None = None,
        where: Sequence[str] = (),
    ) -> Hits:
        """The k nearest items to each query; arguments as for `PrefixIndex.search`.

        With `where`, every search reads the ids and metadata of all items, and passes Milvus the keys of those that
        satisfy the conditions.

        Raises:
            NestKALAError: as there, more results than Milvus returns, or a length that it does not hold.
        """
        shortlist = checked_shortlist(k, shortlist, rescore is not None)
        if shortlist > _MOST:
            raise NestKALAError(f"Milvus returns at most {_MOST:,} results, not {shortlist:,}")
        found = self._found(codes, bits, shortlist, where=where)
        if shortlist == k and rescore is None:
            return Hits([[row["id"] for row in rows] for rows in found], _distances(found))
        # Re-ranked here, as in a local index.
        hits = [
            _as_index(rows, self.bits).search(
                code[None], k, shortlist=max(k, len(rows)), rescore=None if rescore is None else rescore[q : q + 1]
            )
            for q, (code, rows) in enumerate(zip(codes, found, strict=True))
        ]
        return Hits([hit.ids[0] for hit in hits], np.stack([hit.distances[0] for hit in hits]))

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items within a distance; arguments as for `PrefixIndex.search_radius`.

        Raises:
            NestKALAError: as there, a length that Milvus does not hold, or too many items for Milvus to return.
        """
        check_radius(radius)
        found = self._found(codes, bits, _MOST, {"radius": radius + 1}, where)  # Milvus excludes the radius itself
        if any(len(rows) == _MOST for rows in found):
            raise NestKALAError(f"{_MOST:,} or more images are within {radius} bits, more than Milvus returns")
        return Hits([[row["id"] for row in rows] for rows in found], [_distances([rows])[0] for rows in found])

    def _found(
        self,
        codes: NDArray[np.uint8],
        bits: int | None,
        limit: int,
        params: dict[str, Any] | None = None,
        where: Sequence[str] = (),
    ) -> list[list[dict[str, Any]]]:
        bits = self.bits if bits is None else bits
        if bits not in self.lengths:
            known = ", ".join(map(str, self.lengths))
            raise NestKALAError(f"bits must be one of the lengths that this Milvus index holds ({known}), not {bits!r}")
        check_queries(codes, bits)
        found: list[list[dict[str, Any]]] = [[] for _ in codes]
        if not len(codes) or not len(self):
            return found
        for keys in self._selected(where):
            with _explained(self._collection):
                some = self._client.search(
                    self._collection,
                    data=[code.tobytes() for code in prefix(codes, bits)],
                    anns_field=_field(bits),
                    limit=limit,
                    filter=keys,
                    search_params={"metric_type": "HAMMING", "params": params or {}},
                    output_fields=["id", "code"],
                    timeout=_SECONDS,
                )
            for rows, hits in zip(found, some, strict=True):
                rows += [{"distance": hit["distance"], **hit["entity"]} for hit in hits]
        return [sorted(rows, key=lambda row: row["distance"])[:limit] for rows in found]

    def _selected(self, where: Sequence[str]) -> Iterator[str]:
        """Milvus expressions that select the items that satisfy conditions, a batch each."""
        conditions = parse_conditions(where)
        if not conditions:
            yield ""
            return
        items = list(self.items())
        places, keys = items_that_satisfy(items, conditions)
        check_keys(conditions, keys)
        chosen = (_key(items[place][0]) for place in places)
        while some := list(islice(chosen, _ROWS)):
            yield f"key in {json.dumps(some)}"


def is_address(where: str) -> bool:
    """Whether this is a Milvus address: a URI, or a Milvus Lite file."""
    return "://" in where or where.partition("#")[0].endswith(".db")


def _connected(address: str) -> tuple["MilvusClient", str]:
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise NestKALAError('Milvus needs a client: pip install "nestkala[milvus]"') from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # its errors are raised as exceptions, too
    uri, _, collection = address.partition("#")
    with _explained(address), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # imported by Milvus Lite 2.5
        return MilvusClient(uri, timeout=_SECONDS), collection or COLLECTION


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn Milvus errors into NestKALAError."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        raise NestKALAError(f"Milvus ({where}): {one_line(error)}") from error


def _as_index(rows: Sequence[Mapping[str, Any]], bits: int, about: Mapping[str, str] | None = None) -> PrefixIndex:
    codes = np.array([list(bytes.fromhex(row["code"])) for row in rows], np.uint8).reshape(-1, _num_bytes(bits))
    metadata = [row.get("metadata", {}) for row in rows]
    return PrefixIndex.build(codes, [row["id"] for row in rows], bits, metadata, about)


def _distances(found: Sequence[Sequence[Mapping[str, Any]]]) -> NDArray[np.int32]:
    longest = max(map(len, found), default=0)
    return np.array([[row["distance"] for row in rows] for rows in found], np.int32).reshape(len(found), longest)


def _num_bytes(bits: int) -> int:
    return -(-bits // 8)


def _field(bits: int) -> str:
    return f"bits_{bits}"


def _key(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
