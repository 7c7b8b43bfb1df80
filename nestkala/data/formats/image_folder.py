"""Hugging Face ImageFolder with metadata: `metadata.csv` (or .jsonl, .parquet) with a column `file_name`.

https://huggingface.co/docs/datasets/image_dataset. The file is in the folder, or there is one per split folder.
"""

from pathlib import Path

from ...utils.errors import NestKALAError
from ..dataset import FileDataset
from .columns import choose_columns
from .manifest import Rows
from .tables import Table, open_table

_FILE_NAME = "file_name"
_NAMES = tuple(f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet"))


def is_image_folder(folder: Path) -> bool:
    """Whether a folder, or one of its subfolders, holds metadata with a column `file_name`."""
    return any(_tables(folder).values()) or any(table for _, table in _split_tables(folder))


def load_image_folder(folder: Path, class_names: tuple[str, ...] | None = None) -> FileDataset:
    """Load the images that metadata describes, named by their paths relative to the folder.

    If each split has its own folder with metadata, the splits are named like the folders.

    Raises NestKALAError as `load_manifest` does, and for two metadata files in one folder.
    """
    rows = Rows()
    own = [table for table in _tables(folder).values() if table is not None]
    tables = [("", table) for table in own] or _split_tables(folder)
    for split in {split for split, _ in tables}:
        several = [table.path.name for of, table in tables if of == split]
        if len(several) > 1:
            raise NestKALAError(f"{str(folder / split)!r} holds {' and '.join(several)}: keep only one")
    for split, table in tables:
        columns = choose_columns(table.columns, {"path": [_FILE_NAME]}, str(table.path))
        rows.read(table, columns, folder, f"{split}/" if split else "", split or None)
    return rows.as_dataset(folder, class_names, str(folder))


def _tables(folder: Path) -> dict[str, Table | None]:
    found = {name: open_table(folder / name) for name in _NAMES if (folder / name).is_file()}
    return {name: table if _FILE_NAME in table.columns else None for name, table in found.items()}


def _split_tables(folder: Path) -> list[tuple[str, Table]]:
    return [
        (below.name, table)
        for below in sorted(folder.iterdir())
        if below.is_dir() and not below.name.startswith(".")
        for table in _tables(below).values()
        if table is not None
    ]
