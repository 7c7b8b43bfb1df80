"""Digests of image files, remembered so that a file which has not changed is not read again."""

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
"""Files that are remembered; of more, those that were seen last."""
_SETTLED_NS = 2_000_000_000
"""A file that changed so recently may change again within one tick of its file system's clock."""


def digest(data: bytes | memoryview) -> bytes:
    """BLAKE2b of 16 bytes."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


class Digests:
    """Digests of files, kept in a file of a folder.

    A file is known by its path, number, size, and times of modification and of change, the last of which nobody sets.
    Where several processes write at once, what one wrote may be lost, and its files are read again.

    Args:
        folder: where to keep them; it need not be there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = self._read()
        self._seen: dict[bytes, bytes] = {}
        self._is_new = self._was_told = False
        remove_unfinished(folder, FILE, ABANDONED_SECONDS)

    def of(self, path: Path) -> bytes:
        """The digest of a file's bytes. Safe to call from several threads. Raises OSError where it cannot be read."""
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
        """Write what is new; where that cannot be done, it is told once."""
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
                logger.warning("cannot remember the digests of images in %s: %s", self._folder, error)
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
            logger.warning("leaving aside the remembered digests: %s", error)
            return {}
        packed, width = rows.numpy().tobytes(), 2 * DIGEST_BYTES
        starts = range(0, len(packed), width)
        return {packed[s : s + DIGEST_BYTES]: packed[s + DIGEST_BYTES : s + width] for s in starts}


def _key(path: Path, status: os.stat_result) -> bytes:
    told = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    words = f"{os.path.abspath(path)}\0{told}"  # noqa: PTH100 - resolving links would take longer than the rest
    return digest(words.encode("utf-8", "surrogateescape"))
