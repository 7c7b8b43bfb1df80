"""An index that follows folders of images: only new, changed and deleted files are touched."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..hasher import Hasher
from ..images.dates import with_date
from ..images.excludes import Excludes
from ..images.listing import LeftOut, emptied_folders, images_below
from ..index.contract import SearchIndex
from ..index.prefix_index import PrefixIndex
from ..utils.errors import NestKALAError
from .image_folder import CHUNK, encoded
from .places import ImageFolders

_A_HANDFUL = 5
"""Images of which nobody deletes most by accident."""

Metadata = dict[str, dict[str, Any]]
"""What is known of each image, by its id."""


@dataclass
class Changes:
    """What an update of an index did; names are paths relative to the folder, of several folders FOLDER/PATH.

    Attributes:
        added, changed, removed: images that are new, that were encoded anew, and that are no longer there.
        unchanged: how many were left as they were.
        broken: files that cannot be read as images, and are not in the index.
        left_out: what was not looked at. Images there that the index holds stay in it, and count as unchanged.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    broken: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass
class Difference:
    """What folders hold, and how an index differs from it.

    Attributes:
        here: size and time of modification of each image in the folders.
        added, changed, removed: images that are new, have another size or time, and are no longer there.
        undated: metadata of images that are unchanged, and whose date the index does not know; of index files alone.
        num_known: images in the index.
        left_out: what was not looked at.
    """

    here: Metadata
    added: list[str]
    changed: list[str]
    removed: list[str]
    undated: Metadata
    num_known: int
    left_out: LeftOut

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to bring up to date."""
        return not (self.added or self.changed or self.removed or self.undated)


def update_from_folder(
    index: SearchIndex,
    folder: Path | ImageFolders,
    hasher: Hasher,
    *,
    exclude: Iterable[str] = (),
    allow_removal: bool = False,
    workers: int = 0,
    progress: bool = False,
    keep: Callable[[], None] = lambda: None,
    keep_every: int = 10_000,
) -> Changes:
    """Make the index hold the images of a folder, or several, and their subfolders.

    Ids are paths relative to the folder, of several folders FOLDER/PATH. A file has changed where its size or time of
    modification has. What cannot be listed keeps its codes. Which files count as images says `images_below`.

    Args:
        index: that was made of these folders before, or is empty.
        folder: of images. Of several folders in the index some may be left out: their images stay as they are.
        hasher: whose codes the index holds.
        exclude: patterns of files to leave out, as for `Excludes`. Those that the index holds are removed from it.
        allow_removal: remove images also where most of a folder's are gone, or all of a subfolder that is still there,
            as in the folder of a disk that is not mounted.
        workers: threads that decode; 0 decodes in the calling one.
        progress: show a bar.
        keep: called after every `keep_every` images that were encoded, and at the end: to save the index.

    Raises:
        NestKALAError: no such folder, so many images gone that it must be allowed, keep_every below 1, or a hasher
            whose codes are of other length than the index's, or do not nest.
    """
    if not hasher.model.head.nested or hasher.lengths[-1] != index.bits:
        raise NestKALAError(
            f"the index holds nested codes of {index.bits} bits, and the model gives "
            f"{'' if hasher.model.head.nested else 'codes that do not nest, '}{hasher.lengths[-1]} bits"
        )
    if keep_every < 1:
        raise NestKALAError(f"images between saves must be 1 or more, not {keep_every}")
    folders = ImageFolders.of(folder)
    difference = compare(index, folders, exclude, allow_removal)
    return bring_up_to_date(index, folders, difference, hasher, workers, progress, keep, keep_every)


def compare(
    index: SearchIndex, folders: ImageFolders, exclude: Iterable[str] = (), allow_removal: bool = False
) -> Difference:
    """How an index differs from what folders hold; arguments and errors as for `update_from_folder`."""
    here, known, left_out, removed = Metadata(), dict(index.items()), LeftOut(), list[str]()
    patterns = list(exclude)
    for name, path in folders.paths.items():
        passed_over = LeftOut()
        inside = dict(images_below(path, passed_over, patterns))
        excludes = Excludes.of(path, patterns)
        start = f"{name}/" if name else ""
        before = {known_name[len(start) :] for known_name in known if known_name.startswith(start)}
        gone = sorted(image for image in before - inside.keys() if not passed_over.covers(image))
        if not allow_removal:
            _refuse_loss(path, [image for image in gone if not excludes.covers(image)], len(before), inside)
        here |= {start + image: metadata for image, metadata in inside.items()} if start else inside
        removed += [start + image for image in gone]
        left_out.add(passed_over, name)
    index.check_ids(here)
    changed = {name for name in here.keys() & known.keys() if _differs(here[name], known[name])}
    return Difference(
        here=here,
        added=sorted(here.keys() - known.keys()),
        changed=sorted(changed),
        removed=sorted(removed),
        undated={
            name: metadata
            for name, metadata in known.items()
            if isinstance(index, PrefixIndex) and "date" not in metadata and name in here and name not in changed
        },
        num_known=len(known),
        left_out=left_out,
    )


def bring_up_to_date(
    index: SearchIndex,
    folders: ImageFolders,
    difference: Difference,
    hasher: Hasher,
    workers: int = 0,
    progress: bool = False,
    keep: Callable[[], None] = lambda: None,
    keep_every: int = 10_000,
) -> Changes:
    """Make an index hold what folders hold, of which `compare` found how it differs.

    Arguments as for `update_from_folder`.
    """
    here = difference.here
    changes = Changes(
        added=difference.added, changed=difference.changed, removed=difference.removed, left_out=difference.left_out
    )
    changes.unchanged = difference.num_known - len(changes.changed) - len(changes.removed)
    _fill_in_dates(index, folders, difference.undated)
    index.remove([*changes.removed, *changes.changed])

    waiting: list[tuple[Sequence[str], NDArray[np.uint8]]] = []
    todo = [*changes.added, *changes.changed]
    left, unsaved = len(todo), 0
    chunk = keep_every // -(-keep_every // CHUNK)
    with tqdm(total=len(todo), desc="encoding", unit="img", disable=not (progress and todo)) as bar:
        for names, codes, broken in encoded(hasher, folders.file, todo, workers, chunk):
            waiting.append((names, codes))
            changes.broken += broken
            left, unsaved = left - len(names) - len(broken), unsaved + len(names) + len(broken)
            bar.update(len(names) + len(broken))
            if unsaved + min(chunk, left) > keep_every:
                _add(index, waiting, folders, here)
                keep()
                unsaved = 0
    _add(index, waiting, folders, here)
    keep()
    unread = set(changes.broken)
    changes.added = [name for name in changes.added if name not in unread]
    changes.changed = [name for name in changes.changed if name not in unread]
    return changes


def images_in(folders: ImageFolders, exclude: Iterable[str], left_out: LeftOut) -> Metadata:
    """The images of folders by id, with size and time of modification; `exclude` as for `update_from_folder`."""
    found, patterns = Metadata(), list(exclude)
    for name, path in folders.paths.items():
        passed_over = LeftOut()
        for image, metadata in images_below(path, passed_over, patterns):
            found[f"{name}/{image}" if name else image] = metadata
        left_out.add(passed_over, name)
    return found


def _differs(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a file has changed; its date, which is read from it, does not count."""
    return any(now[key] != before.get(key) for key in now)


def _refuse_loss(folder: Path, gone: list[str], num_known: int, here: Mapping[str, Any]) -> None:
    """Raise NestKALAError where a folder seems to be another than it was, and not only to hold fewer images."""
    advice = "is a disk not mounted? Nothing was changed; --allow-removal removes them from the index"
    if gone and (not here or (len(gone) >= _A_HANDFUL and 2 * len(gone) > num_known)):
        raise NestKALAError(f"{len(gone)} of {num_known} images in the index are no longer in {folder}: {advice}")
    for emptied in emptied_folders(folder, gone, here, _A_HANDFUL):
        lost = sum(name.startswith(f"{emptied}/") for name in gone)
        raise NestKALAError(
            f"all {lost} images of {folder / emptied} in the index are gone, and the folder is still there: {advice}"
        )


def _add(
    index: SearchIndex, waiting: list[tuple[Sequence[str], NDArray[np.uint8]]], folders: ImageFolders, here: Metadata
) -> None:
    """Move what waits into the index."""
    if waiting:
        names = [name for some, _ in waiting for name in some]
        index.add(np.concatenate([codes for _, codes in waiting]), names, dated(folders, names, here))
        waiting.clear()


def dated(
    folders: ImageFolders, names: Iterable[str], metadata: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The metadata of images, with the date of each."""
    files = ((folders.file(name), metadata[name]) for name in names)
    return [dict(known) if file is None else with_date(file, known) for file, known in files]


def _fill_in_dates(index: SearchIndex, folders: ImageFolders, undated: Metadata) -> None:
    """Give images of an index that was made without dates theirs; their codes stay."""
    if undated and isinstance(index, PrefixIndex):
        places = [place for place, name in enumerate(index.ids) if name in undated]
        names, codes = [index.ids[place] for place in places], index.codes[places]
        index.remove(names)
        index.add(codes, names, dated(folders, names, undated))
