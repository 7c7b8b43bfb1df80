"""Exported networks on disk, so that each is exported once."""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import torch

from ..tokens.cache import default_folder
from ..utils.errors import NestKALAError
from ..utils.files import ABANDONED_SECONDS, load_tensors, remove_unfinished, save_tensors

logger = logging.getLogger(__name__)

_FOLDER = "exports"
_DIGEST = "[0-9a-f]" * 32
_EXPORT, _FINDING = f"{_DIGEST}.safetensors", f"{_DIGEST}.json"
_MAX_BYTES = 4e9
"""Of all exported networks together; beyond it those go that were not used for longest."""


class ExportCache:
    """Exported networks, each a safetensors file with a checksum.

    Args:
        tokens: folder of the token cache, which they are kept in a folder `exports` of; `default_folder` by default.
        max_bytes: bound on the bytes of all of them.

    Raises:
        NestKALAError: a user without a home folder, and no NESTKALA_CACHE.
    """

    def __init__(self, tokens: Path | None = None, max_bytes: float = _MAX_BYTES) -> None:
        self.folder = (default_folder() if tokens is None else tokens) / _FOLDER
        self._max_bytes = max_bytes

    def path(self, made_of: Mapping[str, str]) -> Path:
        """Of the file that holds the export of a network, described by all that it depends on."""
        description = "\n".join(f"{name} {value}" for name, value in sorted(made_of.items()))
        return self.folder / f"{blake2b(description.encode(), digest_size=16).hexdigest()}.safetensors"

    def get(self, made_of: Mapping[str, str], make: Callable[[], bytes]) -> bytes:
        """The export of a network: the kept one, or what `make` gives, which is then kept.

        A file that is damaged is made anew. One that cannot be written is not kept, with a warning.
        """
        path = self.path(made_of)
        with suppress(NestKALAError, FileNotFoundError, KeyError):
            exported = load_tensors(path, str(path))[0]["onnx"].numpy().tobytes()
            with suppress(OSError):  # of a cache that may only be read
                os.utime(path)  # so that it counts as recently used
            return exported
        exported = make()
        try:
            save_tensors(path, {"onnx": torch.frombuffer(bytearray(exported), dtype=torch.uint8)}, dict(made_of))
            remove_unfinished(self.folder, older_than=ABANDONED_SECONDS)
        except OSError as error:
            logger.warning("cannot keep the exported model in %s: %s", self.folder, error)
        self._make_room(path)
        return exported

    def size(self) -> tuple[int, int]:
        """How many exported networks there are, and their bytes."""
        sizes = [size for _, size, _ in self._files()]
        return len(sizes), sum(sizes)

    def clear(self) -> None:
        """Delete all of them, unfinished ones and what was found out about them, too. Nothing else is touched."""
        for pattern in (_EXPORT, _FINDING):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        remove_unfinished(self.folder)
        with suppress(OSError):  # of a folder that another process is writing to, or that holds other files
            self.folder.rmdir()

    def _files(self) -> list[tuple[float, int, Path]]:
        """Time of last use, bytes and path of each."""
        found = []
        for path in self.folder.glob(_EXPORT):
            with suppress(FileNotFoundError):  # another process made room
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _make_room(self, newest: Path) -> None:
        excess = self.size()[1] - self._max_bytes
        for _, size, path in sorted(self._files()):
            if excess <= 0:
                return
            if path == newest:
                continue
            with suppress(OSError):  # somebody else's, in a shared cache
                path.unlink()
            excess -= size
