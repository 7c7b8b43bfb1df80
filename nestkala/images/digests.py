"""Digests of image files, cached so that unchanged files are not read again."""

import logging
import os
import time
from hashlib import blake2b
from pathlib import Path

import torch

from ..utils.errors import NestKALAError
from ..utils.files import ABANDONED_SECONDS, load_tensors, remove_unfinished, save_tensors
from ..utils.versions import check_version

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16
FILE = "digests.safetensors"
_FORMAT, _VERSION = "nestkala-digests", 1
_MOST = 2_000_000
"""Maximum number of cached files; the most recently seen ones are kept."""
_SETTLED_NS = 2_000_000_000
"""A file that changed this recently may change again within one tick of the file system's clock."""


def digest(data: bytes | memoryview) -> bytes:
    """16-byte BLAKE2b digest."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


class Digests:
    """Digests of files, cached in a file.

    A file is identified by its path, inode, size, modification time and change time, which users cannot set. If several
    processes write at once, the entries of one may be lost, and its files are read again.

    Args:
        folder: folder of the cache file; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._read()
        self._seen: dict[bytes, bytes] = {}
        self._is_new = self._was_told = False
        remove_unfinished(folder, FILE, ABANDONED_SECONDS)

    def of(self, path: Path) -> bytes:
        """The digest of a file's bytes. Thread-safe. Raises OSError if the file cannot be read."""
        before = path.stat()
        key = _key(path, before)
        if (found := self._known.get(key)) is None:
            found = digest(path.read_bytes())
            newest = max(before.st_mtime_ns, before.st_ctime_ns)
            if _key(path, path.stat()) != key or time.time_ns() - newest < _SETTLED_NS:
                return found
            self._is_new = True
        self._seen[key] = found
        return found

    def save(self) -> None:
        """Write new digests; if that fails, warn once."""
        if not self._is_new:
            return
        self._is_new = False
        self._known |= self._seen
        others = {key: found for key, found in (self._read() | self._known).items() if key not in self._seen}
        kept = [key + found for key, found in (others | self._seen).items()][-_MOST:]
        rows = torch.frombuffer(bytearray(b"".join(kept)), dtype=torch.uint8).view(-1, 2 * DIGEST_BYTES)
        try:
            save_tensors(self._folder / FILE, {"digests": rows}, {"format": _FORMAT, "version": str(_VERSION)})
        except (OSError, NestKALAError) as error:
            if not self._was_told:
                logger.warning("cannot cache the digests of images in %s: %s", self._folder, error)
            self._was_told = True

    def _read(self) -> dict[bytes, bytes]:
        path = self._folder / FILE
        try:
            tensors, metadata = load_tensors(path, str(path))
            check_version(str(path), metadata.get("version"), _VERSION)
            rows = tensors["digests"]
            if rows.dtype != torch.uint8 or rows.ndim != 2 or rows.shape[1] != 2 * DIGEST_BYTES:
                raise NestKALAError(f"{path} holds {rows.dtype} {tuple(rows.shape)}")
        except FileNotFoundError:
            return {}
        except (NestKALAError, OSError, KeyError) as error:
            logger.warning("ignoring the cached digests: %s", error)
            return {}
        packed, width = rows.numpy().tobytes(), 2 * DIGEST_BYTES
        starts = range(0, len(packed), width)
        return {packed[s : s + DIGEST_BYTES]: packed[s + DIGEST_BYTES : s + width] for s in starts}


def _key(path: Path, status: os.stat_result) -> bytes:
    told = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    words = f"{os.path.abspath(path)}\0{told}"  # noqa: PTH100 - resolving links would take longer than the rest
    return digest(words.encode("utf-8", "surrogateescape"))
