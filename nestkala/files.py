"""Files that are whole or not there, written to a temporary name and then renamed; arrays that are read."""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from .errors import NestKALAError, one_line

TEMPORARY = ".writing-"
"""How names of unfinished files begin."""

ABANDONED_SECONDS = 3600.0
"""An unfinished file in a folder that others may write to is taken for one of a killed process after so long."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, to write to; it becomes `path` when the context ends without an error.

    The data is on the disk before the rename, so that a crash leaves the old file or the new one.
    """
    if not path.name:
        raise NestKALAError(f"{path} is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, names: str = "*", older_than: float = 0.0) -> None:
    """Delete what processes that were killed had begun to write.

    Args:
        folder: it is in.
        names: pattern of what would have been written, which may name subfolders.
        older_than: seconds since it was last written to, where others may be writing now.
    """
    *subfolders, name = names.split("/")
    for left in folder.glob("/".join([*subfolders, f"{TEMPORARY}*-{name}"])):
        with suppress(OSError):  # gone by now, or in a folder that may only be read
            if time.time() - left.stat().st_mtime >= older_than:
                left.unlink()


def load_array(path: Path, called: str, mmap: bool = False) -> np.ndarray:
    """The array in a .npy file, `called` so in errors; with mmap it stays on the disk.

    Raises:
        NestKALAError: it cannot be read, or is an archive of several.
    """
    try:
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise NestKALAError(f"cannot read {called}: {one_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise NestKALAError(f"{called} must be one array, not an archive of several")
    return array


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError: it cannot be written, for want of room as a rule.
    """
    with replacing_safetensors(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)


@contextmanager
def replacing_safetensors(path: Path) -> Iterator[Path]:
    """As `replacing`, for what safetensors writes: its errors become OSError, and others may read the file."""
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            yield temporary
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        temporary.chmod(mode)  # safetensors gives it to its owner alone


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
