"""Writes files atomically, through a temporary folder; reads arrays and tensors."""

import hashlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import NestKALAError, one_line

_TEMPORARY = ".writing-"
_UNFINISHED = f"{_TEMPORARY}{'[0-9a-f]' * 32}-"
"""Pattern for the start of the names of folders with unfinished files."""
_CHECKSUM = "checksum"

ABANDONED_SECONDS = 3600.0
"""Seconds after which an unfinished file in a shared folder is attributed to a killed process."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file of the same name in a temporary folder, to write to; unless there is an error, it becomes `path`.

    The folder is next to `path`. If `path` is a link, it stays one: the file that it points to is replaced, and the
    folder is next to that file. An existing file passes on its mode and, if permitted, its owner.

    The data is flushed to disk before it is moved, so that a crash leaves either the old file or the new one. Other
    files that libraries write along the way, such as temporary files of their own, are deleted with the folder.

    Raises:
        NestKALAError: if it is a folder, a device or a pipe, or a link in a circle or into a missing folder.
    """
    target, before = _replaceable(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
    folder.mkdir(0o777 if before is None else 0o700)
    temporary = folder / path.name
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        if before is not None:
            _pass_on(before, temporary)
        temporary.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Raise NestKALAError if it is clear in advance that `replacing` could not write a file; writes nothing."""
    parent = _replaceable(path)[0].absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise NestKALAError(f"cannot write {path}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise NestKALAError(f"cannot write {path}: the folder {parent} is not writable")


def _replaceable(path: Path) -> tuple[Path, os.stat_result | None]:
    """The file to replace, and its status; raises NestKALAError if it is not a file, as `replacing` does."""
    target = link_target(path)
    before = target.stat() if target.exists() else None
    if not path.name or (before is not None and stat.S_ISDIR(before.st_mode)):
        raise NestKALAError(f"{path} is a folder: give a file")
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise NestKALAError(f"{path} is a device or a pipe: give a file")
    return target, before


def link_target(path: Path) -> Path:
    """The file that a path points to through links, which need not exist; the path itself if it is not a link.

    Raises:
        NestKALAError: if links form a circle, or point into a missing folder.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise NestKALAError(f"{path} is a circular link")
    if not target.parent.is_dir():
        raise NestKALAError(f"{path} is a link to {target}, but there is no folder {target.parent}")
    return target


def _pass_on(before: os.stat_result, file: Path) -> None:
    """Give a file the owner and mode that another one had, as far as the system permits."""
    with suppress(PermissionError):
        if (before.st_uid, before.st_gid) != (file.stat().st_uid, file.stat().st_gid):
            os.chown(file, before.st_uid, before.st_gid)
    with suppress(PermissionError):  # file systems without owners
        file.chmod(stat.S_IMODE(before.st_mode))


def remove_unfinished(folder: Path, names: str = "*", older_than: float | None = None) -> None:
    """Delete files that killed processes left unfinished.

    Args:
        folder: folder that contains them.
        names: pattern of the final names, which may include subfolders.
        older_than: seconds since the last write, if others may be writing now; None for any age, even if the clock was
            set back.
    """
    *subfolders, name = names.split("/")
    for left in folder.glob("/".join([*subfolders, _UNFINISHED + name])):
        with suppress(OSError):  # already gone, or in a read-only folder
            if older_than is None or time.time() - _last_written(left) >= older_than:
                shutil.rmtree(left)


def used_files(folder: Path, pattern: str) -> list[tuple[float, int, Path]]:
    """Time of last use, bytes and path of each file of a cache, the least recently used first."""
    found = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process deleted it
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return sorted(found)


def is_unfinished(path: Path) -> bool:
    """Whether a path, by its name, is the folder of an unfinished file."""
    return fnmatchcase(path.name, f"{_UNFINISHED}*")


def _last_written(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))


def load_array(path: Path, called: str) -> np.ndarray:
    """The array in a .npy file, memory-mapped; errors refer to it as `called`.

    Raises:
        NestKALAError: if it cannot be read, or is an archive of several arrays.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises almost any type for broken headers
        raise NestKALAError(f"cannot read {called}: {one_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise NestKALAError(f"{called} must be one array, not an archive of several")
    return array


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with a checksum, atomically.

    Raises:
        OSError: if it cannot be written, usually because the disk is full.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = metadata or {}
    with replacing_safetensors(path) as temporary:
        save_file(plain, temporary, metadata | {_CHECKSUM: _checksum(plain, metadata)})


def load_tensors(path: Path, called: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata written by `save_tensors`; a file without a checksum is not verified.

    Args:
        path: path of the file.
        called: name of the file in errors.

    Raises:
        NestKALAError: if it is not a safetensors file, cannot be read, or differs from what was written.
        FileNotFoundError: if there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise
    except Exception as error:  # torch rejects types that safetensors accepts, such as 4-bit numbers
        raise NestKALAError(f"{called} is damaged: {one_line(error)}") from None
    written = metadata.pop(_CHECKSUM, None)
    if written not in (None, _checksum(tensors, metadata)):
        raise NestKALAError(f"{called} is damaged: its content differs from what was written")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return checksum(
        metadata,
        (
            (f"{name} {value.dtype} {tuple(value.shape)}", value.reshape(-1).view(torch.uint8).numpy())
            for name, value in sorted(tensors.items())
        ),
    )


def checksum(metadata: Mapping[str, str], arrays: Iterable[tuple[str, NDArray[np.uint8]]]) -> str:
    """BLAKE2b, 128 bits in hex digits, of a file's metadata and of arrays, given by description and bytes."""
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for description, content in arrays:
        digest.update(description.encode())
        digest.update(content.data)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing_safetensors(path: Path) -> Iterator[Path]:
    """Like `replacing`, for safetensors: its errors become OSError, and other users may read the file."""
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            yield temporary
        except SafetensorError as error:
            raise OSError(f"cannot write {path}: {error}") from error
        with suppress(PermissionError):  # file systems without owners
            temporary.chmod(mode)  # safetensors makes it readable by its owner only


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
