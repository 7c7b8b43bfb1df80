"""Which folders an index is of, when a command names some of them, or new ones."""

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
    """An index with the folders that a command names, all of its folders, and those that were named.

    Folders that the index does not have are added if one that it has is named along with them. If it was of one folder
    before, its images are now called FOLDER/PATH.

    Args:
        index: that is there.
        given: folders; none for all that the index knows.
        where: name of the index.
        roots: as for `folders_of`.

    Raises:
        NestKALAError: folders of another index, two of the same name, one that is missing, or an index that is no file
            and would have to call its images differently.
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
            f"{shown_address(where)} is the index of {known}, not of {named}; if its images were moved there, say "
            f"--root {given[0]}; to add a folder, name it after one that the index has"
        )
    together = known
    if new:
        together = known.with_more(new)
        if not known.are_several:
            index = _renamed(index, where, next(iter(together.paths)))
    named_ones = {name: path for name, path in together.paths.items() if path.resolve() in asked}
    return index, together, ImageFolders(named_ones).check_there(where)


def patterns_of(index: SearchIndex | None, given: Sequence[str]) -> list[str]:
    """The patterns that an index leaves files out by: those given, or else those that it was given last.

    Raises:
        NestKALAError: what the index keeps of them is damaged.
    """
    if given or index is None or "exclude" not in index.about:
        return [pattern for pattern in given if pattern]
    kept = parsed_json(index.about["exclude"], "what the index says of excluded files")
    if not isinstance(kept, list) or not all(isinstance(pattern, str) for pattern in kept):
        raise NestKALAError("what the index keeps of the files that it excludes is damaged")
    return kept


def notes_on(folders: ImageFolders, exclude: Sequence[str], where: str) -> dict[str, str]:
    """What an index keeps of its folders and of what it leaves out."""
    return folders.as_notes(where) | ({"exclude": json.dumps(list(exclude))} if exclude else {})


def note(index: SearchIndex, folders: ImageFolders, exclude: Sequence[str], where: str) -> None:
    """Let an index keep `notes_on` its folders in place of what it kept before.

    Raises:
        NestKALAError: an index that is no file, whose notes are fixed when it is made, has other folders or patterns.
    """
    if isinstance(index, PrefixIndex):
        others = {key: said for key, said in index.about.items() if key not in ("folder", "near", "folders", "exclude")}
        index.about = others | notes_on(folders, exclude, where)
    elif folders_of(index).paths.keys() != folders.paths.keys() or patterns_of(index, ()) != list(exclude):
        raise NestKALAError(
            "only an index file can change its folders or what it excludes: make a new index of these folders"
        )


def _renamed(index: SearchIndex, where: str, folder: str) -> PrefixIndex:
    if not isinstance(index, PrefixIndex):
        raise NestKALAError(
            f"{shown_address(where)} is not a file: there an index of one folder cannot become one of several"
        )
    items = list(index.items())
    names, metadata = [f"{folder}/{name}" for name, _ in items], [about for _, about in items]
    return PrefixIndex.build(index.codes, names, index.bits, metadata, index.about)
