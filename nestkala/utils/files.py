"""Files that are whole or not there, written in a temporary folder and then moved; arrays and tensors that are read."""

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
"""How names of the folders of unfinished files begin, as a pattern."""
_CHECKSUM = "checksum"

ABANDONED_SECONDS = 3600.0
"""An unfinished file in a folder that others may write to is taken for one of a killed process after so long."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file of the same name in a temporary folder, to write to; it becomes `path` without an error.

    The folder is beside `path`. Where that is a link it stays one, and the file that it leads to is replaced, beside
    which the folder is then. A file that was there passes on its mode and, where that is allowed, its owner.

    The data is on the disk before it is moved, so that a crash leaves the old file or the new one. What libraries
    write on their way, temporary files of their own among it, goes with the folder.

    Raises:
        NestKALAError: a folder, a device or a pipe; a link in a circle, or into a folder that is not there.
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
    """Raise NestKALAError where it is seen beforehand that `replacing` could not write a file; nothing is written."""
    parent = _replaceable(path)[0].absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise NestKALAError(f"cannot write {path}: {parent} is no folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise NestKALAError(f"cannot write {path}: the folder {parent} may not be written to")


def _replaceable(path: Path) -> tuple[Path, os.stat_result | None]:
    """The file to replace, and what there is of it; raises NestKALAError for what is none, as `replacing`."""
    target = link_target(path)
    before = target.stat() if target.exists() else None
    if not path.name or (before is not None and stat.S_ISDIR(before.st_mode)):
        raise NestKALAError(f"{path} is a folder: name a file")
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise NestKALAError(f"{path} is a device or a pipe: name a file")
    return target, before


def link_target(path: Path) -> Path:
    """The file that a path leads to by way of links, which may not be there yet; the path itself where it is no link.

    Raises:
        NestKALAError: links that lead in a circle, or into a folder that is not there.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise NestKALAError(f"{path} is a link that leads in a circle")
    if not target.parent.is_dir():
        raise NestKALAError(f"{path} is a link to {target}, and there is no folder {target.parent}")
    return target


def _pass_on(before: os.stat_result, file: Path) -> None:
    """Give a file the owner and the mode that another had, as far as the system allows."""
    with suppress(PermissionError):
        if (before.st_uid, before.st_gid) != (file.stat().st_uid, file.stat().st_gid):
            os.chown(file, before.st_uid, before.st_gid)
    with suppress(PermissionError):  # of file systems without owners
        file.chmod(stat.S_IMODE(before.st_mode))


def remove_unfinished(folder: Path, names: str = "*", older_than: float | None = None) -> None:
    """Delete what processes that were killed had begun to write.

    Args:
        folder: it is in.
        names: pattern of what would have been written, which may name subfolders.
        older_than: seconds since it was last written to, where others may be writing now; None for whatever age, also
            where a clock was set back meanwhile.
    """
    *subfolders, name = names.split("/")
    for left in folder.glob("/".join([*subfolders, _UNFINISHED + name])):
        with suppress(OSError):  # gone by now, or in a folder that may only be read
            if older_than is None or time.time() - _last_written(left) >= older_than:
                shutil.rmtree(left)


def is_unfinished(path: Path) -> bool:
    """Whether a path is the folder of a file that is, or was, being written, by its name."""
    return fnmatchcase(path.name, f"{_UNFINISHED}*")


def _last_written(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))


def load_array(path: Path, called: str) -> np.ndarray:
    """The array in a .npy file, `called` so in errors; it stays on the disk.

    Raises:
        NestKALAError: it cannot be read, or is an archive of several.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises nearly every type on broken headers
        raise NestKALAError(f"cannot read {called}: {one_line(error)}") from None
    if not isinstance(array, np.ndarray):
        raise NestKALAError(f"{called} must be one array, not an archive of several")
    return array


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with a checksum, whole or not at all.

    Raises:
        OSError: it cannot be written, for want of room as a rule.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = metadata or {}
    with replacing_safetensors(path) as temporary:
        save_file(plain, temporary, metadata | {_CHECKSUM: _checksum(plain, metadata)})


def load_tensors(path: Path, called: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata that `save_tensors` wrote; a file without a checksum is taken as it is.

    Args:
        path: of the file.
        called: what errors call it.

    Raises:
        NestKALAError: it is no safetensors file, cannot be read, or is not what was written.
        FileNotFoundError: there is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise
    except Exception as error:  # torch refuses what safetensors lets pass, such as numbers of half a byte
        raise NestKALAError(f"{called} is damaged: {one_line(error)}") from None
    written = metadata.pop(_CHECKSUM, None)
    if written not in (None, _checksum(tensors, metadata)):
        raise NestKALAError(f"{called} is damaged: its content is not what was written")
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
    """BLAKE2b, 128 bits in hexadecimal digits, of what a file says of itself and of arrays, described and as bytes."""
    digest = hashlib.blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for description, content in arrays:
        digest.update(description.encode())
        digest.update(content.data)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        with suppress(PermissionError):  # of file systems without owners
            temporary.chmod(mode)  # safetensors gives it to its owner alone


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
