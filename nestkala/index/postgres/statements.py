"""SQL statements that search a table of codes.

A table has the columns `id text COLLATE "C"`, `code bit(n)`, `number bigint` (the order of insertion) and `metadata
jsonb`. Codes that share a prefix are a range of an index on (code, number).
"""

from functools import lru_cache
from itertools import combinations
from math import comb

from psycopg import sql

PROBES = (256, 4096)
"""Maximum number of prefixes in the first and second attempt; after that, scanning all codes is faster."""

_EVERYTHING = sql.SQL("true")


def ball_radius(bits: int, most: int) -> int:
    """The largest radius with at most `most` codes of this many bits."""
    within = radius = 0
    while radius <= bits and (within := within + comb(bits, radius)) <= most:
        radius += 1
    return radius - 1


@lru_cache(maxsize=64)
def ball(bits: int, radius: int) -> str:
    """All codes of this many bits with at most `radius` ones, as a PostgreSQL array."""
    masks = (ones for number in range(radius + 1) for ones in combinations(range(bits), number))
    return "{" + ",".join("".join("1" if bit in ones else "0" for bit in range(bits)) for ones in masks) + "}"


def by_ranges(table: sql.Identifier, bits: int, length: int, limited: bool = True) -> sql.Composed:
    """The nearest items with prefixes in a ball around the query's: `id`, `code`, `number` and `distance`.

    Prefixes are ordered by distance, then by value. The final order extends that order, so PostgreSQL sorts
    incrementally and looks up no more prefixes than are needed to fill the limit.

    Args:
        table: table of codes of `length` bits.
        bits: length of the prefix (parameter `prefix`); the parameter `ball` is centered at 0.
        length: code length.
        limited: whether to limit the number of items to the parameter `most`.
    """
    limit = sql.SQL("LIMIT %(most)s" if limited else "")
    return sql.SQL(
        """
        SELECT id, code, number, distance
        FROM (
            SELECT mask # %(prefix)s::bit({bits}) AS prefix, bit_count(mask)::int AS distance
            FROM unnest(%(ball)s::bit({bits})[]) AS mask
            ORDER BY distance, prefix
        ) AS prefixes, LATERAL (
            SELECT id, code, number FROM {table}
            WHERE code BETWEEN prefix::bit({length}) AND ~((~prefix)::bit({length}))
            ORDER BY code, number {limit}
        ) AS items
        ORDER BY distance, prefix, code, number {limit}
        """
    ).format(table=table, bits=sql.Literal(bits), length=sql.Literal(length), limit=limit)


def by_scan(table: sql.Identifier, bits: int, length: int, where: sql.Composable = _EVERYTHING) -> sql.Composed:
    """The nearest items, at most `most`, by a full scan; columns and parameters as for `by_ranges`."""
    return _scan(table, bits, length, where, sql.SQL("LIMIT %(most)s"))


def within(table: sql.Identifier, bits: int, length: int, where: sql.Composable = _EVERYTHING) -> sql.Composed:
    """All items within the distance `radius`, by a full scan; columns and parameters as for `by_ranges`."""
    near = sql.SQL("{where} AND {distance} <= %(radius)s").format(where=where, distance=_distance(bits, length))
    return _scan(table, bits, length, near, sql.SQL(""))


def ranked(shortlist: sql.Composable, length: int, whole: bool, with_codes: bool) -> sql.Composed:
    """The first `k` results of another statement: `id`, `distance`, `code` and the size of its result.

    Args:
        shortlist: the other statement.
        length: code length.
        whole: whether to rank by the full-length distance to the parameter `whole`, with ties in the shortlist's order.
        with_codes: whether to return codes, in the format of `bit_send`.
    """
    return sql.SQL(
        """
        SELECT id, {distance} AS distance, {code}, count(*) OVER ()
        FROM ({shortlist}) AS shortlist (id, code, number, coarse)
        ORDER BY distance, coarse, shortlist.code, number LIMIT %(k)s
        """
    ).format(
        distance=sql.SQL("bit_count(code # %(whole)s::bit({}))::int" if whole else "coarse").format(
            sql.Literal(length)
        ),
        code=sql.SQL("bit_send(code)" if with_codes else "NULL"),
        shortlist=shortlist,
    )


def _scan(table: sql.Identifier, bits: int, length: int, where: sql.Composable, limit: sql.Composable) -> sql.Composed:
    return sql.SQL(
        "SELECT id, code, number, {distance} AS distance FROM {table} WHERE {where} "
        "ORDER BY distance, code, number {limit}"
    ).format(distance=_distance(bits, length), table=table, where=where, limit=limit)


def _distance(bits: int, length: int) -> sql.Composed:
    prefix = sql.SQL("code" if bits == length else "code::bit({bits})").format(bits=sql.Literal(bits))
    return sql.SQL("bit_count({prefix} # %(prefix)s::bit({bits}))::int").format(prefix=prefix, bits=sql.Literal(bits))
