"""An index that follows a folder of images: only new, changed and deleted files are touched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..hasher import Hasher
from ..images.listing import LeftOut, emptied_folders, images_below
from ..index.contract import SearchIndex
from ..utils.errors import NestKALAError
from .image_folder import CHUNK, encoded

_A_HANDFUL = 5
"""Images of which nobody deletes most by accident."""


@dataclass
class Changes:
    """What an update of an index did; names are paths relative to the folder.

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


def update_from_folder(
    index: SearchIndex,
    folder: Path,
    hasher: Hasher,
    *,
    allow_removal: bool = False,
    workers: int = 0,
    progress: bool = False,
    keep: Callable[[], None] = lambda: None,
    keep_every: int = 10_000,
) -> Changes:
    """Make the index hold the images of a folder and its subfolders; ids are their paths relative to it.

    A file has changed where its size or time of modification has. What cannot be listed keeps its codes. Which files
    count as images says `images_below`.

    Args:
        index: that was made of this folder before, or is empty.
        folder: of images.
        hasher: whose codes the index holds.
        allow_removal: remove images also where most of them are gone, or all of a subfolder that is still there, as in
            the folder of a disk that is not mounted.
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
    left_out = LeftOut()
    here = dict(images_below(folder, left_out))
    index.check_ids(here)
    known = dict(index.items())
    changes = Changes(
        added=sorted(here.keys() - known.keys()),
        changed=sorted(name for name in here.keys() & known.keys() if here[name] != known[name]),
        removed=sorted(name for name in known.keys() - here.keys() if not left_out.covers(name)),
        left_out=left_out,
    )
    if not allow_removal:
        _refuse_loss(folder, changes.removed, known, here)
    changes.unchanged = len(known) - len(changes.changed) - len(changes.removed)
    index.remove([*changes.removed, *changes.changed])

    waiting: list[tuple[Sequence[str], NDArray[np.uint8]]] = []
    todo = [*changes.added, *changes.changed]
    left, unsaved = len(todo), 0
    chunk = keep_every // -(-keep_every // CHUNK)
    with tqdm(total=len(todo), desc="encoding", unit="img", disable=not (progress and todo)) as bar:
        for names, codes, broken in encoded(hasher, folder, todo, workers, chunk):
            waiting.append((names, codes))
            changes.broken += broken
            left, unsaved = left - len(names) - len(broken), unsaved + len(names) + len(broken)
            bar.update(len(names) + len(broken))
            if unsaved + min(chunk, left) > keep_every:
                _add(index, waiting, here)
                keep()
                unsaved = 0
    _add(index, waiting, here)
    keep()
    unread = set(changes.broken)
    changes.added = [name for name in changes.added if name not in unread]
    changes.changed = [name for name in changes.changed if name not in unread]
    return changes


def _refuse_loss(
    folder: Path, gone: list[str], known: dict[str, dict[str, Any]], here: dict[str, dict[str, Any]]
) -> None:
    """Raise NestKALAError where a folder seems to be another than it was, and not only to hold fewer images."""
    advice = "is a disk not mounted? Nothing was changed; --allow-removal removes them from the index"
    if gone and (not here or (len(gone) >= _A_HANDFUL and 2 * len(gone) > len(known))):
        raise NestKALAError(f"{len(gone)} of {len(known)} images in the index are no longer in {folder}: {advice}")
    for emptied in emptied_folders(folder, gone, here, _A_HANDFUL):
        lost = sum(name.startswith(f"{emptied}/") for name in gone)
        raise NestKALAError(
            f"all {lost} images of {folder / emptied} in the index are gone, and the folder is still there: {advice}"
        )


def _add(
    index: SearchIndex, waiting: list[tuple[Sequence[str], NDArray[np.uint8]]], here: dict[str, dict[str, Any]]
) -> None:
    """Move what waits into the index."""
    if waiting:
        names = [name for some, _ in waiting for name in some]
        index.add(np.concatenate([codes for _, codes in waiting]), names, [here[name] for name in names])
        waiting.clear()
