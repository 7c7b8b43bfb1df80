"""An index on disk: one safetensors file, replaced whole, checked, and read by memory map."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..errors import NestKALAError
from ..files import replacing_safetensors

_FORMAT, _VERSION = "nestkala-index", "1"
_LONGEST_HEADER = 100_000_000  # safetensors writes no longer one
_ARRAYS = ("words", "ids.text", "ids.ends", "metadata.text", "metadata.ends")


def write_index(path: Path, bits: int, about: Mapping[str, str], arrays: Sequence[NDArray[Any]]) -> None:
    """Write what an index is made of, whole or not at all: see `PrefixIndex.save`."""
    named = dict(zip(_ARRAYS, arrays, strict=True))
    settings = {"format": _FORMAT, "version": _VERSION, "bits": str(bits), "about": json.dumps(about)}
    checksum = _checksum(settings, named)
    with replacing_safetensors(path) as temporary:
        save_file(named, temporary, settings | {"checksum": checksum})


def read_index(path: Path, verify: bool) -> tuple[int, dict[str, str], list[NDArray[Any]]]:
    """The bits, what was told, and the memory-mapped arrays that `write_index` wrote: see `PrefixIndex.load`."""
    header, begin = _header(path)
    settings = header.pop("__metadata__", {})
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        raise NestKALAError(f"{path} is no index of NestKALA")
    if settings.get("version") != _VERSION:
        raise NestKALAError(f"{path} is an index of version {settings.get('version')}, known is {_VERSION}")
    try:
        arrays = {name: _mapped(path, begin, header[name]) for name in _ARRAYS}
        bits, about = int(settings["bits"]), json.loads(settings["about"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise NestKALAError(f"the index {path} is damaged: {error!r}") from None
    checksum = settings.pop("checksum", None)
    if verify and _checksum(settings, arrays) != checksum:
        raise NestKALAError(f"the index {path} is damaged: its content is not what was written")
    return bits, about, list(arrays.values())


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The JSON that a safetensors file begins with, and where the arrays begin."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            text = file.read(size) if size < _LONGEST_HEADER else b""
    except OSError as error:
        raise NestKALAError(f"cannot read index {path}: {error.strerror}") from None
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise NestKALAError(f"{path} is no index of NestKALA")
    return header, 8 + size


def _mapped(path: Path, begin: int, entry: dict[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if end - start != dtype.itemsize * int(np.prod(shape)) or begin + end > path.stat().st_size or start < 0:
        raise ValueError("an array reaches beyond its end")
    if not end - start:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", begin + start, shape)


_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I64": "<i8"}


def _checksum(settings: dict[str, str], arrays: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
