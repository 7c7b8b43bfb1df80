"""Manifests: tables of image paths, labels and optionally splits.

Each row is an image. Multiple labels are a list, words separated by ; or |, several columns, or several rows for the
same image. Paths are relative to the manifest's folder.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.errors import NestKALAError, unknown_name
from ..class_names import check_class_names, one_form
from ..dataset import FileDataset
from .columns import Columns, choose_columns, named_columns
from .parts import parts_of
from .tables import SUFFIXES, Table, open_table


def is_manifest(data: str) -> bool:
    """Whether this is the name of a table file, optionally followed by columns, and not a folder."""
    path = Path(named_columns(data)[0]).expanduser()
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def load_manifest(data: str, class_names: tuple[str, ...] | None = None) -> FileDataset:
    """Load the images of a manifest, each once, in the order of its rows, named by their paths.

    Args:
        data: FILE, or FILE:path=COLUMN,label=COLUMN,split=COLUMN, possibly with several label columns.
        class_names: the classes, some of which may have no images (default: the labels found, sorted).

    Raises:
        NestKALAError: the table cannot be read; columns are not recognized (the message lists them and says how to name
            them); a row has no path, a missing image, an unknown label or an unknown split (with file and line); or
            there are fewer than two classes.
    """
    file, named = named_columns(data)
    table = open_table(Path(file).expanduser())
    rows = Rows()
    rows.read(table, choose_columns(table.columns, named, file), table.path.parent)
    return rows.as_dataset(table.path.parent, class_names, file)


def manifest_paths(data: str) -> tuple[Path, list[str]]:
    """The folder of a manifest and the paths in it, each once; whether the images exist is not checked.

    Raises NestKALAError as `load_manifest` does.
    """
    file, named = named_columns(data)
    table = open_table(Path(file).expanduser())
    columns = choose_columns(table.columns, named, file, needs_label=False)
    paths = (_path(row[columns.path], origin) for origin, row in table.rows([columns.path]))
    return table.path.parent, list(dict.fromkeys(paths))


@dataclass
class Rows:
    """Images by path, with labels and splits, collected from the rows of tables."""

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    """{path: {label: file and line}}"""
    splits: list[tuple[str, str]] = field(default_factory=list)
    """(path, split)"""

    def read(self, table: Table, columns: Columns, root: Path, below: str = "", split: str | None = None) -> None:
        """Add the rows of a table.

        Args:
            table: table to read.
            columns: columns to use.
            root: folder that paths are relative to, after `below` is prepended.
            below: "", or a folder name ending in a slash.
            split: split of all rows, if the table has no split column.
        """
        wanted = dict.fromkeys((columns.path, *columns.label, *([columns.split] if columns.split else [])))
        for origin, row in table.rows(list(wanted)):
            path = below + _path(row[columns.path], origin)
            if path not in self.labels and not (root / path).is_file():
                raise NestKALAError(f"{origin}: no image file {path!r} in {str(root)!r}")
            found = self.labels.setdefault(path, {})
            for column in columns.label:
                for label in _labels(row[column], f"{origin}, {column}"):
                    found.setdefault(one_form(label), origin)
            named = split if columns.split is None else row[columns.split]
            if named not in (None, ""):
                self.splits.append((path, str(named)))

    def as_dataset(self, root: Path, class_names: tuple[str, ...] | None, where: str) -> FileDataset:
        """All images as a data set. Raises NestKALAError as `load_manifest` does."""
        if not self.labels:
            raise NestKALAError(f"{where} lists no images")
        if class_names is None:
            class_names = in_order({label for found in self.labels.values() for label in found})
            check_class_names(class_names, where)
            if len(class_names) < 2:
                named = f"only the class {class_names[0]!r}" if class_names else "no classes"
                raise NestKALAError(f"{where} has {named}; need at least two")
        column = {name: number for number, name in enumerate(class_names)}
        targets = np.zeros((len(self.labels), len(class_names)), bool)
        for row, found in enumerate(self.labels.values()):
            for label, origin in found.items():
                if label not in column:
                    raise unknown_name(f"class at {origin}:", label, class_names)
                targets[row, column[label]] = True
        number = {path: row for row, path in enumerate(self.labels)}
        return FileDataset(
            names=list(self.labels),
            targets=targets,
            class_names=class_names,
            parts=parts_of(((number[path], split) for path, split in self.splits), len(number), where),
            root=root,
        )


def in_order(names: set[str]) -> tuple[str, ...]:
    """Sorted class names; numbers are sorted by value."""
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _path(value: Any, origin: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        kind = "no path" if value in (None, "") else f"{value!r:.40} instead of a path"
        images = "; hf:FOLDER reads tables that hold the images" if isinstance(value, dict | bytes) else ""
        raise NestKALAError(f"{origin}: {kind}{images}")
    return Path(value.strip()).as_posix()


def _labels(value: Any, origin: str) -> Iterator[str]:
    if value is None:
        return
    if isinstance(value, str):
        yield from (word.strip() for word in re.split("[;|]", value) if word.strip())
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for each in value:
            if isinstance(each, list):
                raise NestKALAError(f"{origin}: a list in a list where labels should be")
            # What is an item of a list is one label, whatever letters it has.
            yield from ([each.strip()] if isinstance(each, str) and each.strip() else _labels(each, origin))
    elif isinstance(value, float) and value.is_integer():
        yield str(int(value))
    else:
        raise NestKALAError(f"{origin}: {value!r:.40} is not a label; use words, whole numbers or lists of these")
