"""Where the images of an index are: in one or more folders, which may have moved."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..images.decoding import is_below
from ..index.contract import SearchIndex
from ..utils.errors import NestKALAError, unknown_name
from ..utils.text_files import parsed_json
from .opening import is_address, shown_address

_NEAR = 1
"""A folder this many levels above an index file or closer is assumed to move together with it."""


@dataclass(frozen=True)
class ImageFolders:
    """The image folders of an index.

    Attributes:
        paths: for one folder {"": folder}, with images named by their path in it; for several {name: folder}, with
            images named NAME/PATH.
    """

    paths: Mapping[str, Path]

    @classmethod
    def of(cls, folders: "Path | ImageFolders | Iterable[Path]") -> "ImageFolders":
        """Make from one or more folders, named by their own names.

        Raises:
            NestKALAError: two folders have the same name, or one is inside another.
        """
        if isinstance(folders, ImageFolders):
            return folders
        given = [folders] if isinstance(folders, Path) else list(folders)
        return cls({"": given[0]}) if len(given) == 1 else cls(_named(given))

    @property
    def are_several(self) -> bool:
        """Whether there are several folders, so that ids begin with a folder name."""
        return "" not in self.paths

    def file(self, name: str) -> Path | None:
        """The file of the image with this id, or None if the id points outside the folders."""
        if not is_below(name):
            return None
        if not self.are_several:
            return self.paths[""] / name
        folder, _, inside = name.partition("/")
        return self.paths[folder] / inside if folder in self.paths and inside else None

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths.values()))

    def with_more(self, folders: Iterable[Path]) -> "ImageFolders":
        """These folders and more; a single folder gets its own name. Raises NestKALAError as `of` does."""
        named = {name or path.resolve().name: path for name, path in self.paths.items()}
        return ImageFolders(_named(folders, named))

    def check_there(self, where: str) -> Self:
        """Return self. Raises NestKALAError if a folder is missing; `where` names the index."""
        for name, path in self.paths.items():
            if not path.is_dir():
                asked = f"{name}=FOLDER" if name else "FOLDER"
                raise NestKALAError(
                    f"the image folder {path} of {shown_address(where)} does not exist; if it has moved or is mounted "
                    f"elsewhere, give its location with --root {asked}"
                )
        return self

    def as_notes(self, where: str) -> dict[str, str]:
        """What the index named `where` stores about its folders in `about`."""
        notes = {name: _located(path.resolve(), where) for name, path in self.paths.items()}
        return {"folders": json.dumps(notes)} if self.are_several else notes[""]


def folders_of(index: SearchIndex, where: str | None = None, roots: Iterable[str] = ()) -> ImageFolders:
    """The image folders of an index.

    A folder near the index file is first looked up relative to the file, so that both can be moved together.

    Args:
        index: an index with the notes from `ImageFolders.as_notes`.
        where: its file.
        roots: new locations of folders: FOLDER; for several folders NAME=FOLDER, or a FOLDER with the same name.

    Raises:
        NestKALAError: the index was not made from a folder, or a root is not a folder or matches none of the index's.
    """
    if "folders" in index.about:
        notes = parsed_json(index.about["folders"], "the index's list of folders")
        if not isinstance(notes, dict) or not all(
            isinstance(note, dict) and "folder" in note for note in notes.values()
        ):
            raise NestKALAError("cannot find the images of the index: its list of folders is damaged")
        paths = {name: _found(note, where) for name, note in notes.items()}
    elif "folder" in index.about:
        paths = {"": _found(index.about, where)}
    else:
        raise NestKALAError("cannot find the images of the index: it was not made from a folder")
    for root in roots:
        name, path = _moved(root, paths)
        if not path.is_dir():
            raise NestKALAError(f"--root {root}: {path} is not a folder")
        paths[name] = path
    return ImageFolders(paths)


def _moved(root: str, known: Mapping[str, Path]) -> tuple[str, Path]:
    """The name and new path of the folder that a root gives."""
    if "" in known:
        return "", Path(root)
    name, equals, path = root.partition("=")
    if not equals:
        name, path = Path(root).resolve().name, root
    if name not in known:
        raise unknown_name("folder for --root, which takes NAME=FOLDER:", name, known)
    return name, Path(path)


def _located(folder: Path, where: str) -> dict[str, str]:
    note = {"folder": str(folder)}
    if not is_address(where):
        start = Path(where).resolve().parent
        near = Path(os.path.relpath(folder, start))  # Path.relative_to cannot go up in Python 3.11
        if near.parts.count("..") <= _NEAR:
            note["near"] = near.as_posix()
    return note


def _found(note: Mapping[str, Any], where: str | None) -> Path:
    if "near" in note and where is not None and not is_address(where):
        near = (Path(where).resolve().parent / note["near"]).resolve()
        if near.is_dir():
            return near
    return Path(note["folder"])


def _named(folders: Iterable[Path], named: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """Folders by name, in addition to those already named."""
    found = dict(named or {})
    for folder in folders:
        path = folder.resolve()
        if not path.name:
            raise NestKALAError(f"{path} has no name to tell its images from those of other folders")
        if path.name in found:
            raise NestKALAError(
                f"two folders are named {path.name!r}, {found[path.name]} and {path}: rename one, since the "
                "index tells their images apart by folder name"
            )
        for other in map(Path.resolve, found.values()):
            if path.is_relative_to(other) or other.is_relative_to(path):
                raise NestKALAError(
                    f"of the folders {other} and {path}, one is inside the other: give only the outer one"
                )
        found[path.name] = path
    return found
