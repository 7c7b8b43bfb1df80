"""Searching codes in PostgreSQL: ranges of prefixes compared to a statement that compares every row."""

import statistics
from collections.abc import Iterator
from functools import partial

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from nestkala.index import PrefixIndex
from nestkala.index.postgres import PostgresIndex
from nestkala.utils.errors import NestKALAError

from .comparison import Row, Timing, seconds

BITS, QUERIES, K, SHORTLIST, AT_ONCE = 64, 20, 10, 1_000, 500_000
PLAIN = sql.SQL(
    "SELECT id, bit_count(code # %(code)s::bit(64))::int AS distance FROM {} ORDER BY distance, code, number LIMIT 10"
)
SEARCHES = {"8 bits": (8, None), "16 bits": (16, None), "24 bits": (24, None), "16 bits, then 64": (16, SHORTLIST)}


def run(address: str | None, items: int) -> list[Row]:
    """One table and one of 16 partitions, of uniform codes; both are dropped afterwards.

    Args:
        address: postgresql://USER@HOST:PORT/DATABASE.
        items: number of codes.
    """
    if address is None:
        raise NestKALAError("give the address of a PostgreSQL server to measure on with --postgres")
    return [row for partitions in (None, 16) for row in _rows(address, items, partitions)]


def _rows(address: str, items: int, partitions: int | None) -> Iterator[Row]:
    name = f"nestkala_measured_{partitions or 1}"
    index = PostgresIndex.create(f"{address}#{name}", BITS, partitions=partitions)
    try:
        index.extend(_parts(items))
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(name)))
            queries = np.random.default_rng(1).integers(0, 256, (QUERIES, BITS // 8), dtype=np.uint8)
            for label, (bits, shortlist) in SEARCHES.items():
                search = partial(_ours, index, queries, bits, shortlist)
                plain = partial(_plain, connection, name, queries[:3])
                search()
                rounds = [(seconds(plain) / 3, seconds(search) / QUERIES) for _ in range(3)]
                timing = Timing([first for first, _ in rounds], [second for _, second in rounds])
                yield Row(
                    f"{K} nearest of {items:,} rows in PostgreSQL, {label}, "
                    + (f"{partitions} partitions" if partitions else "one table"),
                    "comparing all 64 bits of every row",
                    timing.text,
                    "",
                    statistics.median(timing.ratios) > 1,
                    {"plain_s": timing.plain, "ours_s": timing.ours},
                )
    finally:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        index.close()


def _parts(items: int) -> Iterator[PrefixIndex]:
    rng = np.random.default_rng(0)
    for begin in range(0, items, AT_ONCE):
        num = min(AT_ONCE, items - begin)
        codes = rng.integers(0, 256, (num, BITS // 8), dtype=np.uint8)
        yield PrefixIndex.build(codes, (f"2019/italy/{number}.jpg" for number in range(begin, begin + num)))


def _ours(index: PostgresIndex, queries: NDArray[np.uint8], bits: int, shortlist: int | None) -> None:
    for query in queries:
        index.search(query[None], K, bits, shortlist=shortlist)


def _plain(connection: "psycopg.Connection[tuple[object, ...]]", name: str, queries: NDArray[np.uint8]) -> None:
    for query in queries:
        code = "".join(f"{byte:08b}" for byte in query)
        connection.execute(PLAIN.format(sql.Identifier(name)), {"code": code}).fetchall()
