"""A disk cache of exported networks, so that each is exported only once."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import torch

from ..tokens.cache import default_folder
from ..utils.errors import NestKALAError
from ..utils.files import ABANDONED_SECONDS, load_tensors, remove_unfinished, save_tensors, used_files

logger = logging.getLogger(__name__)

_FOLDER = "exports"
_DIGEST = "[0-9a-f]" * 32
_EXPORT, _FINDING = f"{_DIGEST}.safetensors", f"{_DIGEST}.json"
_MAX_BYTES = 4e9
"""Limit on the total size; beyond it, the least recently used networks are deleted."""


class ExportCache:
    """Exported networks, each a safetensors file with a checksum.

    Args:
        tokens: folder of the token cache (default: `default_folder`); networks go to its subfolder `exports`.
        max_bytes: limit on the total size in bytes.

    Raises:
        NestKALAError: the user has no home folder, and NESTKALA_CACHE is not set.
    """

    def __init__(self, tokens: Path | None = None, max_bytes: float = _MAX_BYTES) -> None:
        self.folder = (default_folder() if tokens is None else tokens) / _FOLDER
        self._max_bytes = max_bytes

    def path(self, made_of: Mapping[str, str]) -> Path:
        """The file for the export of a network, which is identified by everything it depends on."""
        description = "\n".join(f"{name} {value}" for name, value in sorted(made_of.items()))
        return self.folder / f"{blake2b(description.encode(), digest_size=16).hexdigest()}.safetensors"

    def get(self, made_of: Mapping[str, str], make: Callable[[], bytes]) -> bytes:
        """The export of a network from the cache, or else from `make`, which is then cached.

        Damaged files are replaced. If a file cannot be written, a warning is logged.
        """
        path = self.path(made_of)
        with suppress(NestKALAError, FileNotFoundError, KeyError):
            exported = load_tensors(path, str(path))[0]["onnx"].numpy().tobytes()
            with suppress(OSError):  # the cache may be read-only
                os.utime(path)  # mark it as recently used
            return exported
        exported = make()
        try:
            save_tensors(path, {"onnx": torch.frombuffer(bytearray(exported), dtype=torch.uint8)}, dict(made_of))
            remove_unfinished(self.folder, older_than=ABANDONED_SECONDS)
        except OSError as error:
            logger.warning("cannot cache the exported model in %s: %s", self.folder, error)
        self._make_room(path)
        return exported

    def size(self) -> tuple[int, int]:
        """Number of exported networks, and their total size in bytes."""
        sizes = [size for _, size, _ in used_files(self.folder, _EXPORT)]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Delete all exported networks, including unfinished ones and measurements. Nothing else is touched."""
        for pattern in (_EXPORT, _FINDING):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        remove_unfinished(self.folder)
        with suppress(OSError):  # another process may be writing to the folder, or it may hold other files
            self.folder.rmdir()

    def _make_room(self, newest: Path) -> None:
        excess = self.size()[1] - self._max_bytes
        for _, size, path in used_files(self.folder, _EXPORT):
            if excess <= 0:
                return
            if path == newest:
                continue
            with suppress(OSError):  # it may belong to another user of a shared cache
                path.unlink()
            excess -= size
