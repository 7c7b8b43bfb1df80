"""Tokens on disk: the frozen trunk's output for an image, computed once.

A folder for each kind of token (backbone, weights, precision, split, preprocessing) contains segments: safetensors
files with the images' keys, digests of their encoded bytes, and the tokens in half precision, read through memory
mapping. A segment is written to a temporary file, moved into place and never changed, so concurrent runs and kills do
no harm: at worst two runs compute the same tokens, or the segment being written is lost.
"""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..images.digests import DIGEST_BYTES as _KEY_BYTES
from ..images.digests import FILE, Digests, digest
from ..utils.errors import NestKALAError
from ..utils.files import ABANDONED_SECONDS, remove_unfinished, replacing_safetensors, used_files
from ..utils.versions import check_version

logger = logging.getLogger(__name__)

_FORMAT, _VERSION = "nestkala-tokens", 1
_DIGEST = "[0-9a-f]" * 32
_KINDS, _SEGMENT = f"{_DIGEST}/", f"{_DIGEST}.safetensors"
_SEGMENTS = _KINDS + _SEGMENT
_HEADER_BYTES = 1024  # more than a segment's header needs
_SEGMENT_BYTES = 256 * 2**20


def default_folder() -> Path:
    """NESTKALA_CACHE, or nestkala/tokens in the user's cache folder. Raises NestKALAError if there is no home."""
    if folder := os.environ.get("NESTKALA_CACHE"):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nestkala" / "tokens"
    except RuntimeError:
        raise NestKALAError(
            "there is no home folder to keep tokens in: set NESTKALA_CACHE to a folder, or --cache-gb 0"
        ) from None


image_key = digest
"""The key of an image: a digest of its encoded bytes."""


@dataclass(frozen=True)
class CacheSize:
    """The contents of a cache."""

    segments: int
    bytes: int


def cache_size(folder: Path) -> CacheSize:
    """Count the segments under `folder`, of all kinds, and their bytes."""
    sizes = [size for _, size, _ in used_files(folder, _SEGMENTS)]
    return CacheSize(len(sizes), sum(sizes))


def clear_cache(folder: Path) -> CacheSize:
    """Delete all tokens under `folder`, including unfinished ones and remembered digests; return how many there were.

    Nothing else is deleted.
    """
    size = cache_size(folder)
    for path in folder.glob(_SEGMENTS):
        path.unlink(missing_ok=True)
    (folder / FILE).unlink(missing_ok=True)
    remove_unfinished(folder, FILE)
    remove_unfinished(folder, _KINDS + "*")
    for kind in folder.glob(_KINDS):
        with suppress(OSError):  # another process is writing to the folder, or it has other files
            kind.rmdir()
    return size


class TokenCache:
    """The tokens of one kind, with room for more within a limit on the whole cache.

    Args:
        folder: folder of all kinds, usually `default_folder`.
        kind: text that identifies everything the tokens depend on besides the image.
        max_bytes: limit on the bytes of all segments of all kinds. To make room, segments of other kinds are deleted,
            least recently used first; if that is not enough, no more tokens are kept.

    Attributes:
        digests: digests of the files that tokens were requested for, stored in the same folder.
    """

    def __init__(self, folder: Path, kind: str, max_bytes: float) -> None:
        self._root, self._max_bytes = folder, max_bytes
        self._folder = folder / blake2b(kind.encode(), digest_size=16).hexdigest()
        self._written_as = {"format": _FORMAT, "version": str(_VERSION), "kind": kind}
        self._places: dict[bytes, tuple[Tensor, int]] = {}
        self._known: set[Path] = set()
        self._pending: dict[bytes, Tensor] = {}
        self._pending_bytes = 0
        self._full = False
        self.digests = Digests(folder)
        remove_unfinished(folder, _KINDS + "*", ABANDONED_SECONDS)
        self.refresh()

    def refresh(self) -> None:
        """Find segments that other processes have written."""
        for path in sorted(self._folder.glob(_SEGMENT)):
            if path in self._known:
                continue
            self._known.add(path)
            try:
                with safe_open(path, framework="pt") as segment:
                    written_as = segment.metadata() or {"version": _VERSION}  # the first segments do not record it
                    check_version("it", written_as.get("version"), _VERSION)
                    keys, tokens = segment.get_tensor("keys"), segment.get_tensor("tokens")
                _check(path, keys, tokens)
                with suppress(OSError):  # read-only cache
                    os.utime(path)  # so that it counts as recently used
            except FileNotFoundError:
                continue
            except (SafetensorError, OSError, ValueError, RuntimeError) as error:
                logger.warning("skipping a part of the token cache, %s: %s", path, error)
                continue
            packed = keys.numpy().tobytes()
            for row in range(len(keys)):
                self._places.setdefault(packed[row * _KEY_BYTES : (row + 1) * _KEY_BYTES], (tokens, row))

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __getitem__(self, key: bytes) -> Tensor:
        """The tokens of one image, in half precision. Raises KeyError if it has none."""
        tokens, row = self._places[key]
        return tokens[row]

    def add(self, key: bytes, tokens: Tensor) -> None:
        """Keep the tokens of one image; they are on disk after the next `flush`, or once a segment is full."""
        if self._full or key in self._places or key in self._pending:
            return
        self._pending[key] = tokens
        self._pending_bytes += tokens.nbytes
        if self._pending_bytes >= _SEGMENT_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the added tokens as one segment. If the disk or the limit is full, no more tokens are kept."""
        if not self._pending:
            return
        keys = torch.frombuffer(bytearray(b"".join(self._pending)), dtype=torch.uint8).view(-1, _KEY_BYTES)
        tokens = torch.stack(list(self._pending.values()))
        name = _segment_name(keys)
        self._pending, self._pending_bytes = {}, 0
        if not self._make_room(keys.nbytes + tokens.nbytes + _HEADER_BYTES):
            self._full = True
            logger.warning(
                "the token cache %s has reached its limit of %.1f GB: no more tokens are kept",
                self._root,
                self._max_bytes / 1e9,
            )
            return
        try:
            with replacing_safetensors(self._folder / name) as temporary:
                save_file({"keys": keys, "tokens": tokens}, temporary, self._written_as)
        except OSError as error:
            self._full = True
            logger.warning("cannot write to the token cache %s: %s; no more tokens are kept", self._root, error)
            return
        self.refresh()

    def _make_room(self, size: int) -> bool:
        segments = used_files(self._root, _SEGMENTS)
        excess = sum(bytes_ for _, bytes_, _ in segments) + size - self._max_bytes
        others = [segment for segment in segments if segment[2].parent != self._folder]
        if excess > sum(bytes_ for _, bytes_, _ in others):
            return False
        for _, bytes_, path in others:
            if excess <= 0:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError:  # another user's, in a shared cache
                return False
            excess -= bytes_
        return True


def _check(path: Path, keys: Tensor, tokens: Tensor) -> None:
    """Raise ValueError if a segment's keys do not match its name, or its number of tokens does not match its keys."""
    if keys.dtype != torch.uint8 or keys.ndim != 2 or keys.shape[1] != _KEY_BYTES or len(keys) != len(tokens):
        raise ValueError(f"it has keys {tuple(keys.shape)} for tokens {tuple(tokens.shape)}")
    if _segment_name(keys) != path.name:
        raise ValueError("its keys are not those that were written")
    if tokens.ndim < 2 or not tokens.is_floating_point():
        raise ValueError(f"{tokens.dtype} {tuple(tokens.shape)} are not tokens")


def _segment_name(keys: Tensor) -> str:
    return blake2b(keys.numpy().tobytes(), digest_size=16).hexdigest() + ".safetensors"
