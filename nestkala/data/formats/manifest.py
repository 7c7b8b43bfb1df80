"""Manifests: tables with the paths of images, their labels and, if need be, their splits.

A row is an image. Several labels are a list, or words with ; or | between them, or several columns; or the image has
several rows. Paths are relative to the manifest's folder.
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
    """Whether this is the name of a table's file, with columns named behind it or not, and no folder."""
    path = Path(named_columns(data)[0]).expanduser()
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def load_manifest(data: str, class_names: tuple[str, ...] | None = None) -> FileDataset:
    """The images of a manifest, each once, in the order of its rows; names are the paths.

    Args:
        data: FILE, or FILE:path=COLUMN,label=COLUMN,split=COLUMN; several columns of labels are allowed.
        class_names: the classes, some of which may have no image; by default the labels that there are, sorted.

    Raises:
        NestKALAError: a table that cannot be read; columns that are not recognized (says which there are, and how to
            name them); a row without a path, or whose image is not there, a label that is no class or a split of
            another name, with file and line; fewer than two classes.
    """
    file, named = named_columns(data)
    table = open_table(Path(file).expanduser())
    rows = Rows()
    rows.read(table, choose_columns(table.columns, named, file), table.path.parent)
    return rows.as_dataset(table.path.parent, class_names, file)


def manifest_paths(data: str) -> tuple[Path, list[str]]:
    """The folder of a manifest, and the paths that it names, each once; that their images are there is not checked.

    Raises NestKALAError as `load_manifest` does.
    """
    file, named = named_columns(data)
    table = open_table(Path(file).expanduser())
    columns = choose_columns(table.columns, named, file, needs_label=False)
    paths = (_path(row[columns.path], origin) for origin, row in table.rows([columns.path]))
    return table.path.parent, list(dict.fromkeys(paths))


@dataclass
class Rows:
    """Images by path, with labels and splits, as the rows of tables give them."""

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    """{path: {label: where it stands}}"""
    splits: list[tuple[str, str]] = field(default_factory=list)
    """(path, split)"""

    def read(self, table: Table, columns: Columns, root: Path, below: str = "", split: str | None = None) -> None:
        """Take the rows of a table.

        Args:
            table: to read.
            columns: of it, which count.
            root: folder that the paths are relative to, once `below` is put before them.
            below: "" or a folder's name with a stroke.
            split: of all rows, where the table has no column of splits.
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
        """All of them as a data set. Raises NestKALAError as `load_manifest` does."""
        if not self.labels:
            raise NestKALAError(f"{where} lists no image")
        if class_names is None:
            class_names = in_order({label for found in self.labels.values() for label in found})
            check_class_names(class_names, where)
            if len(class_names) < 2:
                named = f"only the class {class_names[0]!r}" if class_names else "no class"
                raise NestKALAError(f"{where} has {named}; at least two are needed")
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
    """Class names sorted; numbers by what they are worth."""
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _path(value: Any, origin: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        kind = "no path" if value in (None, "") else f"{value!r:.40} where a path should be"
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
        raise NestKALAError(f"{origin}: {value!r:.40} is no label; words, whole numbers and lists of them are")
