"""What a killed process leaves."""

import os
import time
from pathlib import Path
from uuid import uuid4


def unfinished(path: Path, begun: float = 0, written: float | None = None) -> Path:
    """Leave a half-written file as `nestkala.utils.files.replacing` does, with what a library wrote beside it.

    Args:
        path: of the file that would have been written.
        begun: seconds since.
        written: seconds since the last write; by default, since it was begun.

    Returns:
        The temporary folder.
    """
    folder = path.with_name(f".writing-{uuid4().hex}-{path.name}")
    folder.mkdir()
    for name in (path.name, ".tmpA1b2C3"):
        (folder / name).write_text("half")
        last_used(folder / name, begun if written is None else written)
    last_used(folder, begun)
    return folder


def last_used(path: Path, seconds: float) -> None:
    """Set the times of a file to so many seconds ago."""
    os.utime(path, (time.time() - seconds,) * 2)
