"""Where the images of an index are: in one folder or in several, which may have moved."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..images.decoding import is_below
from ..index.contract import SearchIndex
from ..index.milvus import is_address
from ..utils.errors import NestKALAError, unknown_name
from ..utils.text_files import parsed_json
from .opening import shown_address

_NEAR = 1
"""Steps up from an index file's folder within which a folder is near enough to be moved along with it."""


@dataclass(frozen=True)
class ImageFolders:
    """The folders of an index's images.

    Attributes:
        paths: {"": folder} of one folder, whose images are called by their paths in it; of several {name: folder},
            whose images are called NAME/PATH.
    """

    paths: Mapping[str, Path]

    @classmethod
    def of(cls, folders: "Path | ImageFolders | Iterable[Path]") -> "ImageFolders":
        """One folder, or several, which are called by their own names.

        Raises:
            NestKALAError: two of several have the same name, or one is inside another.
        """
        if isinstance(folders, ImageFolders):
            return folders
        given = [folders] if isinstance(folders, Path) else list(folders)
        return cls({"": given[0]}) if len(given) == 1 else cls(_named(given))

    @property
    def are_several(self) -> bool:
        """Whether ids begin with a folder's name."""
        return "" not in self.paths

    def file(self, name: str) -> Path | None:
        """The file of an image of this id; None for an id that leads elsewhere."""
        if not is_below(name):
            return None
        if not self.are_several:
            return self.paths[""] / name
        folder, _, inside = name.partition("/")
        return self.paths[folder] / inside if folder in self.paths and inside else None

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths.values()))

    def with_more(self, folders: Iterable[Path]) -> "ImageFolders":
        """These folders and others; one that was alone gets its own name. Raises NestKALAError as `of` does."""
        named = {name or path.resolve().name: path for name, path in self.paths.items()}
        return ImageFolders(_named(folders, named))

    def check_there(self, where: str) -> Self:
        """Itself. Raises NestKALAError if a folder is missing; `where` names the index."""
        for name, path in self.paths.items():
            if not path.is_dir():
                asked = f"{name}=FOLDER" if name else "FOLDER"
                raise NestKALAError(
                    f"there is no folder {path}, where the images of {shown_address(where)} were; if it was moved, or "
                    f"is mounted elsewhere, --root {asked} says where it is"
                )
        return self

    def as_notes(self, where: str) -> dict[str, str]:
        """What an index called `where` keeps of its folders, in `about`."""
        notes = {name: _located(path.resolve(), where) for name, path in self.paths.items()}
        return {"folders": json.dumps(notes)} if self.are_several else notes[""]


def folders_of(index: SearchIndex, where: str | None = None, roots: Iterable[str] = ()) -> ImageFolders:
    """Where the images of an index are.

    A folder near the index file is first looked for at the same place relative to it, so that both can be moved
    together.

    Args:
        index: that keeps what `ImageFolders.as_notes` gave.
        where: its file.
        roots: folders that have moved: FOLDER, or of several folders NAME=FOLDER, or a FOLDER of the same name.

    Raises:
        NestKALAError: it was not made of a folder, or a root that is no folder or fits none of the index's.
    """
    if "folders" in index.about:
        notes = parsed_json(index.about["folders"], "what the index says of its folders")
        if not isinstance(notes, dict) or not all(
            isinstance(note, dict) and "folder" in note for note in notes.values()
        ):
            raise NestKALAError("the index does not say where its images are: what it keeps of its folders is damaged")
        paths = {name: _found(note, where) for name, note in notes.items()}
    elif "folder" in index.about:
        paths = {"": _found(index.about, where)}
    else:
        raise NestKALAError("the index does not say where its images are: it was not made of a folder")
    for root in roots:
        name, path = _moved(root, paths)
        if not path.is_dir():
            raise NestKALAError(f"--root {root}: {path} is no folder")
        paths[name] = path
    return ImageFolders(paths)


def _moved(root: str, known: Mapping[str, Path]) -> tuple[str, Path]:
    """Which of an index's folders is at a root, and its path."""
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
        near = Path(os.path.relpath(folder, start))  # which leads upwards, as Path.relative_to cannot in Python 3.11
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
    """Folders by their names, and those that are named already."""
    found = dict(named or {})
    for folder in folders:
        path = folder.resolve()
        if not path.name:
            raise NestKALAError(f"{path} has no name by which its images could be told from those of other folders")
        if path.name in found:
            raise NestKALAError(
                f"two folders are called {path.name!r}, {found[path.name]} and {path}: their names tell their "
                "images apart in the index; rename one"
            )
        for other in map(Path.resolve, found.values()):
            if path.is_relative_to(other) or other.is_relative_to(path):
                raise NestKALAError(
                    f"of the folders {other} and {path} one is inside the other: name the outer one alone"
                )
        found[path.name] = path
    return found
