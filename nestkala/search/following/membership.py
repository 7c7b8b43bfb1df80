"""The folders of an index, when a command names some of them or new ones."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...index.contract import SearchIndex
from ...index.prefix_index import PrefixIndex
from ...utils.errors import NestKALAError
from ...utils.text_files import parsed_json
from ..opening import shown_address
from ..places import ImageFolders, folders_of


def joined(
    index: SearchIndex, given: Sequence[Path], where: str, roots: Iterable[str] = ()
) -> tuple[SearchIndex, ImageFolders, ImageFolders]:
    """Add the folders that a command names; returns the index, all of its folders, and the named ones.

    New folders are added if they are named together with one that the index already has. If the index had one folder
    before, its images are renamed to FOLDER/PATH.

    Args:
        index: the existing index.
        given: folders; empty for all folders of the index.
        where: name of the index.
        roots: as for `folders_of`.

    Raises:
        NestKALAError: none of the folders belongs to the index, two have the same name, one is missing, or the index
            is not a file and its images would have to be renamed.
    """
    known = folders_of(index, where, roots)
    if not given:
        return index, known, known.check_there(where)
    asked = {folder.resolve() for folder in given}
    places = {path.resolve(): name for name, path in known.paths.items()}
    new = [folder for folder in given if folder.resolve() not in places]
    if len(new) == len(given):
        named = ", ".join(map(str, given))
        raise NestKALAError(
            f"{shown_address(where)} is an index of {known}, not of {named}; if its images have moved there, use "
            f"--root {given[0]}; to add a folder, give it together with one that the index already has"
        )
    together = known
    if new:
        together = known.with_more(new)
        if not known.are_several:
            index = _renamed(index, where, next(iter(together.paths)))
    named_ones = {name: path for name, path in together.paths.items() if path.resolve() in asked}
    return index, together, ImageFolders(named_ones).check_there(where)


def patterns_of(index: SearchIndex | None, given: Sequence[str]) -> list[str]:
    """The exclude patterns of an index: those given, or else those given last time.

    Raises:
        NestKALAError: the patterns stored in the index are damaged.
    """
    if given or index is None or "exclude" not in index.about:
        return [pattern for pattern in given if pattern]
    kept = parsed_json(index.about["exclude"], "the index's exclude patterns")
    if not isinstance(kept, list) or not all(isinstance(pattern, str) for pattern in kept):
        raise NestKALAError("the index's exclude patterns are damaged")
    return kept


def notes_on(folders: ImageFolders, exclude: Sequence[str], where: str) -> dict[str, str]:
    """What an index stores about its folders and exclude patterns."""
    return folders.as_notes(where) | ({"exclude": json.dumps(list(exclude))} if exclude else {})


def note(index: SearchIndex, folders: ImageFolders, exclude: Sequence[str], where: str) -> None:
    """Store `notes_on` its folders in an index, replacing earlier ones.

    Raises:
        NestKALAError: the index is not a file, so that its notes are fixed, and has other folders or patterns.
    """
    if isinstance(index, PrefixIndex):
        others = {key: said for key, said in index.about.items() if key not in ("folder", "near", "folders", "exclude")}
        index.about = others | notes_on(folders, exclude, where)
    elif folders_of(index).paths.keys() != folders.paths.keys() or patterns_of(index, ()) != list(exclude):
        raise NestKALAError(
            "only index files can change their folders or exclude patterns: create a new index of these folders"
        )


def _renamed(index: SearchIndex, where: str, folder: str) -> PrefixIndex:
    if not isinstance(index, PrefixIndex):
        raise NestKALAError(f"{shown_address(where)} is not a file, so it cannot change from one folder to several")
    items = list(index.items())
    names, metadata = [f"{folder}/{name}" for name, _ in items], [about for _, about in items]
    return PrefixIndex.build(index.codes, names, index.bits, metadata, index.about)
