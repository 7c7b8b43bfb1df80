"""An index on disk: one safetensors file, replaced whole, checked, and read by memory map."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..utils.errors import NestKALAError, one_line
from ..utils.files import checksum, replacing_safetensors
from ..utils.packed_words import ordered_words
from ..utils.versions import check_version
from .tables import BITS, Tables, num_tables_of

_FORMAT, _VERSION, _WITH_TABLES = "nestkala-index", 1, 2
"""Without tables a file is of the first version, which earlier programs read."""
MAX_BITS = 2**16 - 2
"""Of a code: distances are counted in 16 bits."""
_ARRAYS = ("words", "ids.text", "ids.ends", "metadata.text", "metadata.ends")
_TABLES = ("tables.positions", "tables.starts")


def write_index(
    path: Path, bits: int, about: Mapping[str, str], arrays: Sequence[NDArray[Any]], tables: Tables | None = None
) -> None:
    """Write what an index is made of, whole or not at all: see `PrefixIndex.save`."""
    named = dict(zip(_ARRAYS, arrays, strict=True))
    if tables is not None:
        named |= zip(_TABLES, (tables.positions, tables.starts), strict=True)
    version = str(_VERSION if tables is None else _WITH_TABLES)
    settings = {"format": _FORMAT, "version": version, "bits": str(bits), "about": json.dumps(about)}
    with replacing_safetensors(path) as temporary:
        save_file(named, temporary, settings | {"checksum": _checksum(settings, named)})


def read_index(path: Path, verify: bool) -> tuple[int, dict[str, str], list[NDArray[Any]], Tables | None]:
    """Bits, what was told, the memory-mapped arrays, and the tables if any, that `write_index` wrote.

    Arrays that do not fit together are refused whatever the checksum says, which is no secret: the search trusts them.
    """
    try:
        with safe_open(path, framework="pt") as file:  # which maps arrays, where that for numpy copies them
            settings = file.metadata() or {}
            if settings.get("format") != _FORMAT:
                raise NestKALAError(f"{path} is no index of NestKALA")
            if has_tables := settings.get("version") != str(_VERSION):
                check_version(f"the index {path}", settings.get("version"), _WITH_TABLES)
            names = (*_ARRAYS, *_TABLES) if has_tables else _ARRAYS
            arrays = {name: _fixed(file.get_tensor(name).numpy()) for name in names}
        bits, about = int(settings["bits"]), json.loads(settings["about"])
        _check(bits, about, *(arrays[name] for name in _ARRAYS))
        tables = Tables(*(arrays[name] for name in _TABLES)) if has_tables else None
        if tables is not None:
            _check_tables(tables, bits, len(arrays["words"]))
    except NestKALAError:
        raise
    except OSError as error:
        raise NestKALAError(f"cannot read index {path}: {error.strerror or one_line(error)}") from None
    except SafetensorError as error:
        raise NestKALAError(f"{path} is no index of NestKALA: {one_line(error)}") from None
    except Exception as error:  # torch refuses what safetensors lets pass, such as numbers of half a byte
        raise NestKALAError(f"the index {path} is damaged: {error!r}") from None
    written = settings.pop("checksum", None)
    if verify and _checksum(settings, arrays) != written:
        raise NestKALAError(f"the index {path} is damaged: its content is not what was written")
    return bits, about, [arrays[name] for name in _ARRAYS], tables


def _fixed(array: NDArray[Any]) -> NDArray[Any]:
    if not array.flags.aligned:
        raise ValueError("an array does not begin at a multiple of its items' size")
    array.flags.writeable = False
    return array


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


def _check_tables(tables: Tables, bits: int, num_codes: int) -> None:
    """Raise ValueError for what no tables are made of."""
    positions, starts, num = tables.positions, tables.starts, num_tables_of(bits)
    if positions.dtype != np.uint32 or positions.shape != (num - 1, num_codes):
        raise ValueError(f"{positions.dtype} {positions.shape} are no tables of {num_codes} codes of {bits} bits")
    if starts.dtype != np.uint32 or starts.shape != (num, 2**BITS + 1):
        raise ValueError(f"{starts.dtype} {starts.shape} are no beginnings in {num} tables")
    if (starts[:, 1:] < starts[:, :-1]).any() or starts[:, 0].any() or (starts[:, -1] != num_codes).any():
        raise ValueError("a table's part ends beyond the whole, or before it begins")
    if positions.size and positions.max() >= num_codes:
        raise ValueError("a table names a code that is not there")


def _checksum(settings: dict[str, str], arrays: dict[str, NDArray[Any]]) -> str:
    return checksum(
        settings,
        (
            (f"{name} {array.dtype.str} {array.shape}", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            for name, array in arrays.items()
        ),
    )
