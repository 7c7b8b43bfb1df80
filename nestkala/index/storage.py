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

_FORMAT, _VERSION = "nestkala-index", 1
MAX_BITS = 2**16 - 2
"""Of a code: distances are counted in 16 bits."""
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
    try:
        with safe_open(path, framework="pt") as file:  # which maps arrays, where that for numpy copies them
            settings = file.metadata() or {}
            if settings.get("format") != _FORMAT:
                raise NestKALAError(f"{path} is no index of NestKALA")
            check_version(f"the index {path}", settings.get("version"), _VERSION)
            arrays = {name: _fixed(file.get_tensor(name).numpy()) for name in _ARRAYS}
        bits, about = int(settings["bits"]), json.loads(settings["about"])
        _check(bits, about, *arrays.values())
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
    return bits, about, list(arrays.values())


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


def _checksum(settings: dict[str, str], arrays: dict[str, NDArray[Any]]) -> str:
    return checksum(
        settings,
        (
            (f"{name} {array.dtype.str} {array.shape}", np.ascontiguousarray(array).reshape(-1).view(np.uint8))
            for name, array in arrays.items()
        ),
    )
