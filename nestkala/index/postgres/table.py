"""The table that holds an index."""

from collections.abc import Iterator

from psycopg import sql

from ...utils.errors import NestKALAError
from ...utils.limits import is_whole_number
from .address import Address

MAX_BITS = 16_384
"""Longest code: an entry of a PostgreSQL index can take at most a third of a page."""
MAX_ID_BYTES = 2600
"""Longest id, for the same reason."""
MAX_PARTITIONS = 1024


def check_partitions(partitions: int | None, bits: int = MAX_BITS) -> None:
    """Raise NestKALAError unless codes of this many bits can be partitioned this way by their first bits."""
    most = min(MAX_PARTITIONS, 2**bits)
    if partitions is not None and (not is_whole_number(partitions, 2, most) or partitions & (partitions - 1)):
        raise NestKALAError(f"partitions must be a power of two from 2 to {most}, not {partitions!r}")


def definition(where: Address, bits: int, partitions: int | None, description: str) -> Iterator[sql.Composed]:
    """The statements that create a table."""
    table, (schema, _, name) = where.identifier, where.table.rpartition(".")
    # The key of a partitioned table must include the partitioning column.
    key = sql.SQL("(id)" if partitions is None else "(id, code)")
    yield sql.SQL(
        'CREATE TABLE {table} (id text COLLATE "C" NOT NULL, code bit({bits}) NOT NULL, number bigint GENERATED ALWAYS '
        "AS IDENTITY, metadata jsonb NOT NULL DEFAULT '{{}}', PRIMARY KEY {key}) {divided}"
    ).format(
        table=table,
        bits=sql.Literal(bits),
        key=key,
        divided=sql.SQL("" if partitions is None else "PARTITION BY RANGE (code)"),
    )
    for number in range(partitions or 0):
        bounds: list[sql.Composable] = [sql.SQL("MINVALUE"), sql.SQL("MAXVALUE")]
        width = (partitions or 0).bit_length() - 1
        for side, place in enumerate((number, number + 1)):
            if 0 < place < (partitions or 0):
                bounds[side] = sql.SQL("B{}").format(sql.Literal(f"{place:0{width}b}".ljust(bits, "0")))
        part = [*([schema] if schema else []), f"{name[:55]}_{number:0{len(str(partitions))}}"]
        yield sql.SQL("CREATE TABLE {part} PARTITION OF {table} FOR VALUES FROM ({first}) TO ({end})").format(
            part=sql.Identifier(*part), table=table, first=bounds[0], end=bounds[1]
        )
    yield sql.SQL("CREATE INDEX ON {} (code, number)").format(table)
    yield sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(description))
