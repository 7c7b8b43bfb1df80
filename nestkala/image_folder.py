"""The images below a folder, and their codes a chunk at a time."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NestKALAError
from .hasher import Hasher
from .images import looks_like_image

CHUNK = 1024
"""Images that are encoded at a time."""


def images_below(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The images below a folder by path relative to it, with size and time of modification, in a stable order.

    Hidden files and folders, links to folders or to nothing, pipes and devices, and files without an image's suffix are
    left out.

    Raises:
        NestKALAError: no such folder.
    """
    if not folder.is_dir():
        raise NestKALAError(f"{folder} is no folder")
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if looks_like_image(path):
                try:
                    found = path.stat()
                except OSError:  # a link to nothing, or gone meanwhile
                    continue
                if not stat.S_ISREG(found.st_mode):  # a pipe would be read for ever
                    continue
                yield path.relative_to(folder).as_posix(), {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def encoded(
    hasher: Hasher, folder: Path, names: Sequence[str], workers: int, chunk_size: int = CHUNK
) -> Iterator[tuple[Sequence[str], NDArray[np.uint8], list[str]]]:
    """Names, their packed codes, and the names of those that cannot be read, a chunk at a time."""
    for start in range(0, len(names), chunk_size):
        chunk, broken = names[start : start + chunk_size], list[str]()
        try:
            codes = hasher.encode([folder / name for name in chunk], workers=workers)
        except NestKALAError:  # which is rare: only then is each tried by itself
            broken = [name for name in chunk if not _is_readable(hasher, folder / name)]
            unread = set(broken)
            chunk = [name for name in chunk if name not in unread]
            codes = hasher.encode([folder / name for name in chunk], workers=workers)
        yield chunk, codes, broken


def _is_readable(hasher: Hasher, path: Path) -> bool:
    try:
        hasher.backbone.prepare(path.read_bytes(), str(path))
    except (NestKALAError, OSError):
        return False
    return True
