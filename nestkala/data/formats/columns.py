"""Find the columns of a table that hold paths, labels and splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...utils.errors import NestKALAError, nearest

_KNOWN = {
    "path": (
        *("path", "file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "image_file", "img", "img_path"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "class_name", "category", "categories", "category_name"),
        *("tag", "tags"),
    ),
    "split": ("split", "subset", "partition", "part"),
}
"""Recognized column names, in lowercase and with _ for spaces and hyphens."""
_NAMED = re.compile(r"(?P<file>.+?):(?P<columns>(?:path|label|split|image)=.*)", re.DOTALL)


@dataclass(frozen=True)
class Columns:
    """Names of columns; there may be several for labels."""

    path: str
    label: tuple[str, ...]
    split: str | None


def named_columns(data: str) -> tuple[str, dict[str, list[str]]]:
    """Parse `FILE:path=A,label=B,label=C,split=D` into the file and {role: column names}, which may be empty.

    Raises NestKALAError for anything else after the colon.
    """
    match = _NAMED.fullmatch(data)
    if match is None:
        return data, {}
    named: dict[str, list[str]] = {}
    for word in match["columns"].split(","):
        role, equals, column = word.partition("=")
        if not equals or not column or role not in (*_KNOWN, "image"):
            raise NestKALAError(f"{data!r}: {word!r} is not a column; use {match['file']}:path=COLUMN,label=COLUMN")
        named.setdefault(role, []).append(column)
    return match["file"], named


def choose_columns(found: Sequence[str], named: dict[str, list[str]], where: str, needs_label: bool = True) -> Columns:
    """Choose the columns of a table by the names that the user gave, or else by recognized names.

    Args:
        found: columns of the table.
        named: result of `named_columns`.
        where: the table's file.
        needs_label: whether the table must have labels.

    Raises:
        NestKALAError: a named column does not exist, or no column or several columns could be meant.
    """
    advice = f"it has {', '.join(map(repr, found))}; name them with {where}:path=COLUMN,label=COLUMN"
    if "image" in named:
        raise NestKALAError(f"{where} has paths, not images: use path=COLUMN")
    for column in (column for columns in named.values() for column in columns):
        if column not in found:
            raise NestKALAError(f"{where} has no column {column!r}{nearest(column, found)} ({advice})")
    chosen = {}
    for role, known in _KNOWN.items():
        names = named.get(role) or [name for name in found if re.sub(r"[ -]", "_", name.strip().lower()) in known]
        if len(names) > 1 and (role != "label" or role not in named):
            raise NestKALAError(f"{where} has several columns for the {role}, {' and '.join(names)}: {advice}")
        chosen[role] = names
    for role in ("path", *(["label"] if needs_label else [])):
        if not chosen[role]:
            raise NestKALAError(f"{where} has no recognized column for the {role}: {advice}")
    return Columns(chosen["path"][0], tuple(chosen["label"]), chosen["split"][0] if chosen["split"] else None)
