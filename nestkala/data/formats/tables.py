"""Read tables in CSV, JSON Lines and Parquet format, a row at a time."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...utils.errors import NestKALAError, one_line
from ...utils.text_files import parsed_json

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Suffixes of table files."""


@dataclass(frozen=True)
class Table:
    """A table in a file.

    Attributes:
        path: path of the file.
        columns: names of the columns.
        rows: yields the given columns of each row: location for error messages, and {column: value}.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[tuple[str, dict[str, Any]]]]


def open_table(path: Path) -> Table:
    """Open a table by its file suffix, one of `SUFFIXES`.

    Raises NestKALAError, here or when reading rows, if the file is not a valid table (with file and line) or has no
    header, or for Parquet without pyarrow.
    """
    if not path.is_file():
        raise NestKALAError(f"no file {str(path)!r}")
    suffix = path.suffix.lower()
    table = _parquet(path) if suffix == ".parquet" else _json_lines(path) if suffix == ".jsonl" else _csv(path)
    for name, count in Counter(table.columns).items():
        if count > 1:
            raise NestKALAError(f"{path} has the column {name!r} more than once")
    return table


def _csv(path: Path) -> Table:
    def lines() -> Iterator[tuple[int, list[str]]]:
        # surrogateescape: paths need not be UTF-8.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",\t;", key=first.count))
            try:
                for cells in reader:
                    if any(cells):
                        yield reader.line_num, cells
            except csv.Error as error:
                raise NestKALAError(f"{path}:{reader.line_num}: {one_line(error)}") from None

    header = next(lines(), None)
    if header is None:
        raise NestKALAError(f"{path} is empty: its first line must name the columns")
    columns = tuple(name.strip() for name in header[1])

    def rows(wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        places = {name: columns.index(name) for name in wanted}
        after_header = lines()
        next(after_header)
        for number, cells in after_header:
            if len(cells) != len(columns):
                raise NestKALAError(f"{path}:{number}: {len(cells)} cells, but the header names {len(columns)} columns")
            yield f"{path}:{number}", {name: cells[place] for name, place in places.items()}

    return Table(path, columns, rows)


def _json_lines(path: Path) -> Table:
    def objects() -> Iterator[tuple[str, dict[str, Any]]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    origin = f"{path}:{number}"
                    found = parsed_json(line, origin)
                    if not isinstance(found, dict):
                        raise NestKALAError(f"{origin}: {type(found).__name__} instead of an object {{...}}")
                    yield origin, found

    first = next(objects(), None)
    if first is None:
        raise NestKALAError(f"{path} is empty: it must have one object {{...}} per line")

    def rows(wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        for origin, found in objects():
            yield origin, {name: found.get(name) for name in wanted}

    return Table(path, tuple(first[1]), rows)


def _parquet(path: Path) -> Table:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise NestKALAError(f'{path} needs pyarrow: pip install "nestkala[parquet]"') from None
    try:
        with ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
    except Exception as error:  # Arrow raises many types
        raise NestKALAError(f"{path} is not a readable Parquet file: {one_line(error)}") from None

    def rows(wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        number = 0
        try:
            with ParquetFile(path) as file:
                for batch in file.iter_batches(columns=list(wanted)):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
        except NestKALAError:
            raise
        except Exception as error:  # Arrow raises many types
            raise NestKALAError(f"{path}, after row {number}: {one_line(error)}") from None

    return Table(path, columns, rows)
