"""Encode images in folders, a chunk at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hasher import Hasher
from ..utils.errors import NestKALAError

CHUNK = 1024
"""Number of images encoded at a time."""


def encoded(
    hasher: Hasher, file_of: Callable[[str], Path | None], names: Sequence[str], workers: int, chunk_size: int = CHUNK
) -> Iterator[tuple[Sequence[str], NDArray[np.uint8], list[str]]]:
    """Yield names, their packed codes, and the names of unreadable images, a chunk at a time.

    `file_of` maps a name to its file; images without a file count as unreadable.
    """
    for start in range(0, len(names), chunk_size):
        chunk, broken = names[start : start + chunk_size], list[str]()
        files = {name: file_of(name) for name in chunk}
        try:
            codes = hasher.encode([file or "" for file in files.values()], workers=workers)
        except NestKALAError:  # rare, so only now try each image on its own
            broken = [name for name in chunk if why_unreadable(hasher, files[name])]
            unread = set(broken)
            chunk = [name for name in chunk if name not in unread]
            codes = hasher.encode([files[name] or "" for name in chunk], workers=workers)
        yield chunk, codes, broken


def why_unreadable(hasher: Hasher, path: Path | None) -> str | None:
    """Why an image cannot be read, or None if it can."""
    try:
        hasher.backbone.prepare(b"" if path is None else path.read_bytes(), str(path))
    except NestKALAError as error:
        return str(error)
    except OSError as error:
        return f"cannot read image {str(path)!r}: {error.strerror}"
    return None
