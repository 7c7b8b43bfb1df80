"""The list format common in deep hashing.

A folder holds any of `train.txt`, `database.txt` (or `gallery.txt`) and `test.txt` (or `query.txt`) with lines like
`path 0 1 0 ...`: the path of an image, relative to the folder or to `images` in it, and a 0 or 1 for each class.
`classnames.txt` names the classes, one per line.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..utils.errors import NestKALAError
from .class_names import check_class_names, one_form
from .dataset import FileDataset

CLASS_NAMES = "classnames.txt"
_LISTS = {
    "train": ("train.txt",),
    "database": ("database.txt", "gallery.txt"),
    "test": ("test.txt", "query.txt"),
}
"""Possible names of the list of each part."""
_NAMES = "; ".join(" or ".join(names) for names in _LISTS.values())
_IMAGES = "images"
_BEGINNING = 65_536


def is_list_folder(folder: Path) -> bool:
    """Whether `folder` holds any file of the list format."""
    return any((folder / name).is_file() for names in ((CLASS_NAMES,), *_LISTS.values()) for name in names)


def refuse_ignored_lists(folder: Path) -> None:
    """Raise NestKALAError if a file in `folder` looks like a list but does not have the name of one."""
    known = {name for names in _LISTS.values() for name in names}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".txt", ".lst", ".csv", "") and path.name not in known and path.is_file():
            with path.open("rb") as file:
                words = file.read(_BEGINNING).decode("utf-8-sig", "replace").lstrip().partition("\n")[0].split()
            if len(words) > 2 and {*words[-2:]} <= {"0", "1"}:
                raise NestKALAError(
                    f"{str(path)!r} looks like a list of images with labels, but lists must be named {_NAMES}"
                )


def _lists(root: Path) -> dict[str, Path]:
    """The list of each part that has one."""
    found = {part: [root / name for name in names if (root / name).is_file()] for part, names in _LISTS.items()}
    for part, paths in found.items():
        if len(paths) > 1:
            raise NestKALAError(
                f"{str(root)!r} holds {' and '.join(path.name for path in paths)}, two names for the {part} part: "
                "keep only one"
            )
    if not any(found.values()):
        raise NestKALAError(f"{str(root)!r} holds {CLASS_NAMES} but none of {_NAMES}")
    return {part: paths[0] for part, paths in found.items() if paths}


def load_lists(root: Path) -> FileDataset:
    """Load the images named by the lists in `root`, each once, in the order train, database, test.

    Names are the paths; `parts` holds the images of each list, in the list's order. Raises NestKALAError, with file and
    line, for a missing, empty or malformed file, a file that looks like a list but has another name, two lists for one
    part, an image file that does not exist, and an image that a list repeats or that two lists label differently.
    """
    class_names = read_class_names(root / CLASS_NAMES)
    lists = _lists(root)
    refuse_ignored_lists(root)
    listed: dict[str, tuple[int, str, str, str]] = {}  # {name: index, path, labels, and where it is listed first}
    parts = {}
    for part, path in lists.items():
        members: dict[int, str] = {}
        for origin, name, row in _read_list(path, len(class_names)):
            if name not in listed:
                place = next((each for each in (name, f"{_IMAGES}/{name}") if (root / each).is_file()), None)
                if place is None:
                    raise NestKALAError(
                        f"{origin}: no image file {name!r} in {str(root)!r}, "
                        f"taking the last {len(class_names)} columns as labels"
                    )
                listed[name] = len(listed), place, row, origin
            index, _, labels, first = listed[name]
            if index in members:
                raise NestKALAError(f"{origin}: image {name!r} is already listed at {members[index]}")
            if labels != row:
                raise NestKALAError(f"{origin}: image {name!r} has different labels at {first}")
            members[index] = origin
        if not members:
            raise NestKALAError(f"{str(path)!r} lists no images")
        parts[part] = np.array(list(members), dtype=np.int64)
    digits = np.frombuffer("".join(labels for _, _, labels, _ in listed.values()).encode(), dtype=np.uint8)
    return FileDataset(
        names=[place for _, place, _, _ in listed.values()],
        targets=digits.reshape(len(listed), len(class_names)) == ord("1"),
        class_names=class_names,
        parts=parts,
        root=root,
    )


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names from a file, one per line.

    Raises NestKALAError if it is missing or empty, repeats a name, or has one that `check_class_names` refuses.
    """
    if not path.is_file():
        raise NestKALAError(f"no {str(path)!r}: expected one class name per line, in the order of the lists' columns")
    return _distinct(tuple(line.strip() for _, line in lines(path)), repr(str(path)))


def given_class_names(classes: str) -> tuple[str, ...]:
    """Class names from a setting: the path of a file with one name per line, or names separated by commas.

    Raises NestKALAError as `read_class_names` does.
    """
    path = Path(classes).expanduser()
    if path.suffix == ".txt" or os.sep in classes or path.is_file():
        return read_class_names(path)
    return _distinct(tuple(name.strip() for name in classes.split(",") if name.strip()), f"classes {classes!r}")


def _distinct(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    names = tuple(map(one_form, names))
    if not names:
        raise NestKALAError(f"{where} names no classes")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise NestKALAError(f"{where} names the class {name!r} more than once")
    check_class_names(names, where)
    return names


def _read_list(path: Path, num_classes: int) -> Iterator[tuple[str, str, str]]:
    """Yield file and line number, image name, and labels as a string of zeros and ones, for each line."""
    for line_number, line in lines(path):
        origin = f"{path}:{line_number}"
        # From the right, since paths may hold spaces.
        name, *labels = line.rsplit(maxsplit=num_classes)
        if len(labels) < num_classes:
            raise NestKALAError(f"{origin}: {len(labels)} labels after the path instead of {num_classes}")
        for label in labels:
            if label not in ("0", "1"):
                raise NestKALAError(
                    f"{origin}: labels must be 0 or 1, not {label!r} (a path, then {num_classes} labels)"
                )
        yield origin, PurePosixPath(name).as_posix(), "".join(labels)


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The nonblank lines of a text file, with their numbers."""
    # surrogateescape: paths need not be UTF-8.
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
