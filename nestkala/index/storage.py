"""The format of index files: arrays and settings as safetensors, checked and memory-mapped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save, save_file

from ..utils.errors import NestKALAError, one_line
from ..utils.files import checksum, replacing_safetensors
from ..utils.packed_words import ordered_words
from ..utils.versions import check_version
from .tables import BITS, Tables, num_tables_of

_FORMAT, _VERSION, _WITH_TABLES = "nestkala-index", 1, 2
"""Files without tables use the first version, which earlier releases can read."""
MAX_BITS = 2**16 - 2
"""Longest code: distances are counted in 16 bits."""
_ARRAYS = ("words", "ids.text", "ids.ends", "metadata.text", "metadata.ends")
_TABLES = ("tables.positions", "tables.starts")


_REMOVED = "removed"
_SEGMENT = 3
"""Version of segments appended to a file."""
_DTYPES = {"U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "I64": "<i8"}
_MOST_HEADER = 100_000_000
"""Size limit in bytes, as in safetensors."""


@dataclass(frozen=True, eq=False)
class Stored:
    """The contents of one piece of a file.

    Attributes:
        bits: code length.
        about: notes on the index.
        arrays: words, and the text and ends of ids and metadata.
        tables: tables, if any.
        removed: for a segment, the earlier items that it removes, int64, numbered through all earlier segments.
        merged: for a segment, how many of the segments before it it replaces.
        num_bytes: size of the piece.
    """

    bits: int
    about: dict[str, str]
    arrays: Sequence[NDArray[Any]]
    tables: Tables | None
    removed: NDArray[np.int64]
    merged: int
    num_bytes: int


def write_index(
    path: Path, bits: int, about: Mapping[str, str], arrays: Sequence[NDArray[Any]], tables: Tables | None = None
) -> None:
    """Write a file of one piece, completely or not at all."""
    named, settings = _described(_VERSION if tables is None else _WITH_TABLES, bits, about, arrays, tables)
    with replacing_safetensors(path) as temporary:
        save_file(named, temporary, settings | {"checksum": _checksum(settings, named)})


def segment_bytes(
    bits: int,
    about: Mapping[str, str],
    arrays: Sequence[NDArray[Any]],
    tables: Tables | None,
    removed: NDArray[np.int64],
    merged: int,
) -> bytes:
    """A piece to append to a file; see `Stored`."""
    named, settings = _described(_SEGMENT, bits, about, arrays, tables)
    named[_REMOVED] = removed
    settings["merged"] = str(merged)
    return save(named, settings | {"checksum": _checksum(settings, named)})


def _described(
    version: int, bits: int, about: Mapping[str, str], arrays: Sequence[NDArray[Any]], tables: Tables | None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    named = dict(zip(_ARRAYS, arrays, strict=True))
    if tables is not None:
        named |= zip(_TABLES, (tables.positions, tables.starts), strict=True)
    return named, {"format": _FORMAT, "version": str(version), "bits": str(bits), "about": json.dumps(about)}


def read_index(path: Path, verify: bool = True) -> Stored:
    """Read the first piece of a file, which is all of it if nothing was appended; see `read_piece`."""
    return read_piece(np.memmap(path, np.uint8, "r"), path, verify)


def read_piece(content: NDArray[np.uint8], path: Path, verify: bool, is_segment: bool = False) -> Stored:
    """Read the piece at the beginning of some bytes, without copying its arrays.

    Inconsistent arrays are refused even if the checksum is right, since anyone can compute it and the search trusts
    them.

    Args:
        content: bytes, aligned to 8.
        path: their file, for error messages.
        verify: read everything once to verify the checksum.
        is_segment: whether the piece was appended to a file.

    Raises:
        NestKALAError: the bytes are not an index, have another version, or are damaged.
    """
    try:
        settings, arrays, num_bytes = _parsed(content)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise NestKALAError(f"{path} is not a NestKALA index: {one_line(error)}") from None
    if settings.get("format") != _FORMAT:
        raise NestKALAError(f"{path} is not a NestKALA index")
    version = settings.get("version")
    if is_segment:
        check_version(f"a segment of the index {path}", version, _SEGMENT)
    elif version != str(_VERSION):
        check_version(f"the index {path}", version, _WITH_TABLES)
    try:
        has_tables = _TABLES[0] in arrays if is_segment else version == str(_WITH_TABLES)
        names = (*_ARRAYS, *(_TABLES if has_tables else ()), *((_REMOVED,) if is_segment else ()))
        if set(names) != arrays.keys():
            raise ValueError(f"unexpected arrays {', '.join(arrays)}")
        arrays = {name: arrays[name] for name in names}
        bits, about, kept = int(settings["bits"]), json.loads(settings["about"]), [arrays[name] for name in _ARRAYS]
        _check(bits, about, *kept)
        tables = Tables(*(arrays[name] for name in _TABLES)) if has_tables else None
        if tables is not None:
            _check_tables(tables, bits, len(arrays["words"]))
        removed, merged = arrays.get(_REMOVED, np.empty(0, np.int64)), int(settings.get("merged", 0))
        if removed.dtype != np.int64 or removed.ndim != 1:
            raise ValueError(f"{removed.dtype} {removed.shape} is not a list of removed items")
    except Exception as error:
        raise NestKALAError(f"the index {path} is damaged: {error!r}") from None
    written = settings.pop("checksum", None)
    if verify and _checksum(settings, arrays) != written:
        raise NestKALAError(f"the index {path} is damaged: its checksum does not match")
    return Stored(bits, about, kept, tables, removed, merged, num_bytes)


def _parsed(content: NDArray[np.uint8]) -> tuple[dict[str, str], dict[str, NDArray[Any]], int]:
    """Parse safetensors bytes into settings, arrays, and total size; raises ValueError and similar."""
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    if not 8 < begin <= min(len(content), _MOST_HEADER):
        raise ValueError("the header is missing")
    header = json.loads(content[8:begin].tobytes())
    settings = header.pop("__metadata__", {})
    if not all(isinstance(value, str) for value in settings.values()):
        raise ValueError("its settings are not strings")
    arrays, end = {}, 0
    for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, last) = np.dtype(_DTYPES[told["dtype"]]), told["shape"], told["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError(f"the array {name} has no valid shape")
        if first != end or last - first != dtype.itemsize * prod(shape) or begin + last > len(content):
            raise ValueError(f"the array {name} is not where it should be")
        if (begin + first) % dtype.itemsize:
            raise ValueError(f"the array {name} is not aligned to its item size")
        arrays[name], end = content[begin + first : begin + last].view(dtype).reshape(shape), last
    return settings, arrays, begin + end


def _check(
    bits: int,
    about: Any,
    words: NDArray[Any],
    ids_text: NDArray[Any],
    ids_ends: NDArray[Any],
    metadata_text: NDArray[Any],
    metadata_ends: NDArray[Any],
) -> None:
    """Raise ValueError if this cannot be an index."""
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"code length must be 1 to {MAX_BITS} bits, not {bits}")
    if not isinstance(about, dict) or not all(isinstance(said, str) for said in about.values()):
        raise ValueError("its notes are not a mapping of strings")
    expected = ordered_words(np.empty((0, -(-bits // 8)), np.uint8))
    if words.dtype != expected.dtype or words.ndim != 2 or words.shape[1] != expected.shape[1]:
        raise ValueError(f"{words.dtype} {words.shape} are not codes of {bits} bits")
    for text, ends in ((ids_text, ids_ends), (metadata_text, metadata_ends)):
        if text.dtype != np.uint8 or text.ndim != 1 or ends.dtype != np.int64 or ends.shape != (len(words),):
            raise ValueError(f"{ends.dtype} {ends.shape} cannot divide a text among {len(words)} items")
        bounds = (ends[0], ends[-1]) if len(ends) else (0, 0)
        if bounds[0] < 0 or bounds[1] != len(text) or (ends[1:] < ends[:-1]).any():
            raise ValueError("the text of an item ends out of bounds or before it begins")


def _check_tables(tables: Tables, bits: int, num_codes: int) -> None:
    """Raise ValueError if these cannot be tables."""
    positions, starts, num = tables.positions, tables.starts, num_tables_of(bits)
    if positions.dtype != np.uint32 or positions.shape != (num - 1, num_codes):
        raise ValueError(f"{positions.dtype} {positions.shape} are not tables for {num_codes} codes of {bits} bits")
    if starts.dtype != np.uint32 or starts.shape != (num, 2**BITS + 1):
        raise ValueError(f"{starts.dtype} {starts.shape} are not offsets into {num} tables")
    if (starts[:, 1:] < starts[:, :-1]).any() or starts[:, 0].any() or (starts[:, -1] != num_codes).any():
        raise ValueError("a table entry ends out of bounds or before it begins")
    if positions.size and positions.max() >= num_codes:
        raise ValueError("a table refers to a code that does not exist")


def _checksum(settings: dict[str, str], arrays: dict[str, NDArray[Any]]) -> str:
    return checksum(
        settings,
        (
            (f"{name} {array.dtype.str} {array.shape}", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            for name, array in arrays.items()
        ),
    )
