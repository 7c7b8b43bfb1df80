"""Index files, most of them with a correct checksum, since it is not a secret."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nestkala.index import PrefixIndex
from nestkala.index.storage import read_index, write_index

from .case import Make, accepted, refused
from .good import Good, copied
from .spoiling import DEEP, LARGE_NUMBER, NO_FORMATS, Spoil, absent, cut, flipped, replaced

NAMES = ("words", "ids_text", "ids_ends", "metadata_text", "metadata_ends")


def _searched(spoil: Spoil) -> Make:
    def make(here: Path, good: Good) -> list[str | Path]:
        index = copied(good.index, here)
        spoil(index)
        return ["search", index, good.image]

    return make


def _updated(spoil: Spoil) -> Make:
    def make(here: Path, good: Good) -> list[str | Path]:
        index = copied(good.index, here)
        spoil(index)
        return ["index", good.images, index]

    return make


def _written(bits: int | None = None, about: Any = None, **arrays: Any) -> Spoil:
    """The same index with other parts; an array may be given as a function of the existing one."""

    def spoil(path: Path) -> None:
        whole = read_index(path, verify=False)
        parts = {name: np.array(array) for name, array in zip(NAMES, whole.arrays, strict=True)}
        for name, value in arrays.items():
            parts[name] = value(parts[name])
        told = whole.about if about is None else about
        write_index(path, whole.bits if bits is None else bits, told, [*parts.values()])

    return spoil


def _header(name: str, **values: Any) -> Spoil:
    """Other values in the header's entry for an array or, for «__metadata__», for the file."""

    def spoil(path: Path) -> None:
        content = path.read_bytes()
        begin = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:begin])
        header[name] |= values
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[begin:])

    return spoil


def _told(**values: str) -> Spoil:
    def spoil(path: Path) -> None:
        _written(about=PrefixIndex.load(path).about | values)(path)

    return spoil


def _descending(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([ends[:3][::-1], ends[3:]])


def _beyond(ends: np.ndarray) -> np.ndarray:
    return ends + 2**40


def _bytes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    content = [text.encode() for text in texts]
    return np.frombuffer(b"".join(content), np.uint8), np.cumsum([len(text) for text in content])


_NO_METADATA = _bytes(["{"] * 24)
_DAMAGED = {
    "that is absent": absent,
    "that is cut short": cut(-9),
    "that is cut in its header": cut(100),
    "with a bit flipped in its header": flipped(40),
    "with a bit flipped in its codes": flipped(-5),
    "of another version": _header("__metadata__", version="2"),
    "of a version of 5,000 digits": _header("__metadata__", version=LARGE_NUMBER),
    "of another format": _header("__metadata__", format="other"),
    "with a header of 10,000 brackets": replaced(len(DEEP).to_bytes(8, "little") + DEEP.encode()),
    "of codes of no bits": _written(bits=0),
    "of codes of a trillion bits": _written(bits=10**12),
    "of codes of fewer bits than it says": _written(bits=64),
    "of codes in two columns": _written(words=lambda words: np.repeat(words, 2, axis=1)),
    "of codes in no column": _written(words=lambda words: words[:, 0].copy()),
    "of codes of signed numbers": _written(words=lambda words: words.astype(np.int64)),
    "of fewer codes than names": _written(words=lambda words: words[:-1].copy()),
    "of names that end beyond the text": _written(ids_ends=_beyond),
    "of names that end before they begin": _written(ids_ends=_descending),
    "of names that begin before the text": _written(ids_ends=lambda ends: ends - 100),
    "of metadata that ends beyond the text": _written(metadata_ends=_beyond),
    "of fewer metadata than names": _written(metadata_ends=lambda ends: ends[:-1].copy()),
    "of an array of a negative length": _header("words", shape=[-24, -1]),
    "of an array of a fraction": _header("words", shape=[24.0, 1]),
    "of an array of 2^128 items": _header("words", shape=[2**64, 2**64], data_offsets=[0, 0]),
    "of an array beyond the file": _header("ids.text", shape=[2**40], data_offsets=[0, 2**40]),
    "of an array before the file": _header("words", data_offsets=[-96, 0]),
    "of an array between two words": _header("words", data_offsets=[1, 97]),
    "of an array of an unknown type": _header("words", dtype="F99"),
    "that tells of itself in a list": _written(about=["folder"]),
    "that tells of itself in numbers": _written(about={"folder": 1}),
    **{f"that is {what}": replaced(content) for what, content in NO_FORMATS.items()},
}


def _of_few_bits(path: Path) -> None:
    index = PrefixIndex.load(path)
    PrefixIndex.build(index.codes[:, :1].copy(), list(index.ids), 8, about=index.about).save(path)


def _changed(spoil: Spoil) -> Make:
    """An index from which an image was removed, and the file then spoilt."""

    def make(here: Path, good: Good) -> list[str | Path]:
        path = copied(good.index, here)
        index = PrefixIndex.load(path)
        index.remove([index.ids[0]])
        index.save(path)
        spoil(path)
        return ["search", path, good.image]

    return make


def _is_as_before(here: Path, good: Good, _: str) -> bool:
    index = PrefixIndex.load(here / good.index.name)
    return list(index.items()) == list(PrefixIndex.load(good.index).items())


def _unfinished(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-24] + bytes(24))  # as a file system leaves what did not arrive


CASES = [
    *(
        accepted(f"an index whose last change {what}", _changed(spoil), _is_as_before)
        for what, spoil in {"is cut short": cut(-1), "has no end": cut(-24), "did not arrive": _unfinished}.items()
    ),
    refused("an index whose last change is damaged", _changed(flipped(-100)), "good.index"),
    *(refused(f"an index {what}", _searched(spoil), "good.index") for what, spoil in _DAMAGED.items()),
    refused(
        "an index that is a folder", lambda here, good: ["search", here, good.image], "is a folder without an index"
    ),
    refused("an index of a model that is gone", _searched(_told(model="/gone/away")), "/gone/away"),
    refused("an index of another model", _searched(_told(model_fingerprint="0" * 32)), "a different model"),
    refused("an index of another folder", _updated(_told(folder="/gone/away")), "/gone/away"),
    refused("an index of codes of another length", _updated(_of_few_bits), "8 bits"),
    refused(
        "an index of metadata that is no JSON",
        _updated(_written(metadata_text=lambda _: _NO_METADATA[0], metadata_ends=lambda _: _NO_METADATA[1])),
        "metadata of 'a/",
    ),
]
