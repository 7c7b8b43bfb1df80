"""An index on disk: one safetensors file, replaced whole, checked, and read by memory map."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..utils.errors import NestKALAError
from ..utils.files import checksum, replacing_safetensors
from ..utils.packed_words import ordered_words
from ..utils.versions import check_version

_FORMAT, _VERSION = "nestkala-index", 1
MAX_BITS = 2**16 - 2
"""Of a code: distances are counted in 16 bits."""
_LONGEST_HEADER = 100_000_000  # safetensors writes no longer one
_ARRAYS = ("words", "ids.text", "ids.ends", "metadata.text", "metadata.ends")


def write_index(path: Path, bits: int, about: Mapping[str, str], arrays: Sequence[NDArray[Any]]) -> None:
    """Write what an index is made of, whole or not at all: see `PrefixIndex.save`."""
    named = dict(zip(_ARRAYS, arrays, strict=True))
    settings = {"format": _FORMAT, "version": str(_VERSION), "bits": str(bits), "about": json.dumps(about)}
    with replacing_safetensors(path) as temporary:
        save_file(named, temporary, settings | {"checksum": _checksum(settings, named)})


def read_index(path: Path, verify: bool) -> tuple[int, dict[str, str], list[NDArray[Any]]]:
    """The bits, what was told, and the memory-mapped arrays that `write_index` wrote: see `PrefixIndex.load`.

    Arrays that do not fit together are refused whatever the checksum says, which is no secret: the search trusts them.
    """
    header, begin = _header(path)
    settings = header.pop("__metadata__", {})
    if not isinstance(settings, dict) or settings.get("format") != _FORMAT:
        raise NestKALAError(f"{path} is no index of NestKALA")
    check_version(f"the index {path}", settings.get("version"), _VERSION)
    try:
        arrays = {name: _mapped(path, begin, header[name]) for name in _ARRAYS}
        bits, about = int(settings["bits"]), json.loads(settings["about"])
        _check(bits, about, *arrays.values())
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise NestKALAError(f"the index {path} is damaged: {error!r}") from None
    written = settings.pop("checksum", None)
    if verify and _checksum(settings, arrays) != written:
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
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise NestKALAError(f"{path} is no index of NestKALA")
    return header, 8 + size


def _mapped(path: Path, begin: int, entry: dict[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if any(type(number) is not int or number < 0 for number in (start, end, *shape)):
        raise ValueError("an array's place is no whole number")
    if end - start != dtype.itemsize * math.prod(shape) or begin + end > path.stat().st_size:
        raise ValueError("an array reaches beyond its end")
    if (begin + start) % dtype.itemsize:
        raise ValueError("an array does not begin at a multiple of its items' size")
    if not end - start:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", begin + start, shape)


def _check(
    bits: int,
    about: Any,
    words: NDArray[Any],
    ids_text: NDArray[Any],
    ids_ends: NDArray[Any],
    metadata_text: NDArray[Any],
    metadata_ends: NDArray[Any],
) -> None:
    """Raise ValueError for what no index is made of."""
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"it has codes of {bits} bits, 1 to {MAX_BITS} are possible")
    if not isinstance(about, dict) or not all(isinstance(said, str) for said in about.values()):
        raise ValueError("what it tells of itself is no mapping of words")
    expected = ordered_words(np.empty((0, -(-bits // 8)), np.uint8))
    if words.dtype != expected.dtype or words.ndim != 2 or words.shape[1] != expected.shape[1]:
        raise ValueError(f"{words.dtype} {words.shape} are no codes of {bits} bits")
    for text, ends in ((ids_text, ids_ends), (metadata_text, metadata_ends)):
        if text.dtype != np.uint8 or text.ndim != 1 or ends.dtype != np.int64 or ends.shape != (len(words),):
            raise ValueError(f"{ends.dtype} {ends.shape} do not divide a text among {len(words)} items")
        bounds = (ends[0], ends[-1]) if len(ends) else (0, 0)
        if bounds[0] < 0 or bounds[1] != len(text) or (ends[1:] < ends[:-1]).any():
            raise ValueError("an item's text ends beyond the whole, or before it begins")


_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I64": "<i8"}


def _checksum(settings: dict[str, str], arrays: dict[str, NDArray[Any]]) -> str:
    return checksum(
        settings,
        (
            (f"{name} {array.dtype.str} {array.shape}", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            for name, array in arrays.items()
        ),
    )
