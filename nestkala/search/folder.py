"""Update an index from folders of images: only new, changed and deleted files are processed."""

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
"""If fewer images than this are gone, it is not suspicious."""

Metadata = dict[str, dict[str, Any]]
"""Metadata of each image, by id."""


@dataclass
class Changes:
    """What an update of an index did. Names are paths relative to the folder, or FOLDER/PATH for several folders.

    Attributes:
        added, changed, removed: new images, images encoded again, and images that no longer exist.
        unchanged: how many images were left as they were.
        broken: files that cannot be read as images and are not in the index.
        left_out: what was skipped. Indexed images there stay in the index and count as unchanged.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    broken: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass
class Difference:
    """What folders hold, and how an index differs from that.

    Attributes:
        here: size and modification time of each image in the folders.
        added, changed, removed: new images, images with a different size or time, and images that no longer exist.
        undated: metadata of unchanged images without a date in the index; only for index files.
        num_known: number of images in the index.
        left_out: what was skipped.
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
        """Whether the index is up to date."""
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
    """Make the index hold the images of one or more folders and their subfolders.

    Ids are paths relative to the folder, or FOLDER/PATH for several folders. A file counts as changed if its size or
    modification time has changed. Images that cannot be listed keep their codes. See `images_below` for which files
    count as images.

    Args:
        index: an index made from these folders, or an empty one.
        folder: folder or folders of images. Folders of the index that are not given keep their images.
        hasher: the index's model.
        exclude: patterns of files to skip, as for `Excludes`. Matching images in the index are removed.
        allow_removal: remove images even if most of a folder's are gone, or all of a subfolder that still exists, as
            when a disk is not mounted.
        workers: number of decoding threads; 0 decodes in the calling thread.
        progress: show a progress bar.
        keep: called after every `keep_every` encoded images and at the end, to save the index.

    Raises:
        NestKALAError: a folder does not exist, so many images are gone that removal must be allowed, keep_every is
            less than 1, or the hasher's codes do not nest or differ in length from the index's.
    """
    if not hasher.model.head.nested or hasher.lengths[-1] != index.bits:
        raise NestKALAError(
            f"the index holds nested codes of {index.bits} bits, but the model makes "
            f"{'nested' if hasher.model.head.nested else 'non-nested'} codes of {hasher.lengths[-1]} bits"
        )
    if keep_every < 1:
        raise NestKALAError(f"the number of images between saves must be 1 or more, not {keep_every}")
    folders = ImageFolders.of(folder)
    difference = compare(index, folders, exclude, allow_removal)
    return bring_up_to_date(index, folders, difference, hasher, workers, progress, keep, keep_every)


def compare(
    index: SearchIndex, folders: ImageFolders, exclude: Iterable[str] = (), allow_removal: bool = False
) -> Difference:
    """Compare an index with folders; arguments and errors as for `update_from_folder`."""
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
    """Apply the difference that `compare` found to the index.

    Arguments are as for `update_from_folder`.
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
    """The images of folders by id, with size and modification time; `exclude` as for `update_from_folder`."""
    found, patterns = Metadata(), list(exclude)
    for name, path in folders.paths.items():
        passed_over = LeftOut()
        for image, metadata in images_below(path, passed_over, patterns):
            found[f"{name}/{image}" if name else image] = metadata
        left_out.add(passed_over, name)
    return found


def _differs(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a file has changed. The date is ignored, since it is read from the file."""
    return any(now[key] != before.get(key) for key in now)


def _refuse_loss(folder: Path, gone: list[str], num_known: int, here: Mapping[str, Any]) -> None:
    """Raise NestKALAError if a folder seems to be a different one, rather than one with fewer images."""
    advice = "is a disk not mounted? Nothing was changed; to remove them from the index, use --allow-removal"
    if gone and (not here or (len(gone) >= _A_HANDFUL and 2 * len(gone) > num_known)):
        raise NestKALAError(f"{len(gone)} of {num_known} indexed images are no longer in {folder}: {advice}")
    for emptied in emptied_folders(folder, gone, here, _A_HANDFUL):
        lost = sum(name.startswith(f"{emptied}/") for name in gone)
        raise NestKALAError(
            f"all {lost} indexed images in {folder / emptied} are gone, but the folder still exists: {advice}"
        )


def _add(
    index: SearchIndex, waiting: list[tuple[Sequence[str], NDArray[np.uint8]]], folders: ImageFolders, here: Metadata
) -> None:
    """Move waiting codes into the index."""
    if waiting:
        names = [name for some, _ in waiting for name in some]
        index.add(np.concatenate([codes for _, codes in waiting]), names, dated(folders, names, here))
        waiting.clear()


def dated(
    folders: ImageFolders, names: Iterable[str], metadata: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The metadata of images, including the date of each."""
    files = ((folders.file(name), metadata[name]) for name in names)
    return [dict(known) if file is None else with_date(file, known) for file, known in files]


def _fill_in_dates(index: SearchIndex, folders: ImageFolders, undated: Metadata) -> None:
    """Add missing dates to the metadata of an older index; codes stay as they are."""
    if undated and isinstance(index, PrefixIndex):
        places = [place for place, name in enumerate(index.ids) if name in undated]
        names, codes = [index.ids[place] for place in places], index.codes[places]
        index.remove(names)
        index.add(codes, names, dated(folders, names, undated))
