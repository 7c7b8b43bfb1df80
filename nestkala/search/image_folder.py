"""The codes of images in a folder, a chunk at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..hasher import Hasher
from ..utils.errors import NestKALAError

CHUNK = 1024
"""Images that are encoded at a time."""


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
