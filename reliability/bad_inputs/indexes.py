"""Index files, most of them with a correct checksum, since it is not a secret."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nestkala.index import PrefixIndex
from nestkala.index.storage import read_index, write_index

from .case import accepted, refused
from .damage import DEEP, GARBAGE, LARGE_NUMBER, Damage, absent, cut, flipped, replaced
from .good import Good, Make, on_copy

NAMES = ("words", "ids_text", "ids_ends", "metadata_text", "metadata_ends")


def _searched(damage: Damage) -> Make:
    return on_copy("index", damage, "search COPY IMAGE")


def _updated(damage: Damage) -> Make:
    return on_copy("index", damage, "index IMAGES COPY")


def _written(bits: int | None = None, about: Any = None, **arrays: Any) -> Damage:
    """The same index with other parts; an array may be given as a function of the existing one."""

    def damage(path: Path) -> None:
        whole = read_index(path, verify=False)
        parts = {name: np.array(array) for name, array in zip(NAMES, whole.arrays, strict=True)}
        for name, value in arrays.items():
            parts[name] = value(parts[name])
        notes = whole.about if about is None else about
        write_index(path, whole.bits if bits is None else bits, notes, [*parts.values()])

    return damage


def _header(name: str, **values: Any) -> Damage:
    """Other values in the header's entry for an array or, for «__metadata__», for the file."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        begin = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:begin])
        header[name] |= values
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[begin:])

    return damage


def _noted(**values: str) -> Damage:
    def damage(path: Path) -> None:
        _written(about=PrefixIndex.load(path).about | values)(path)

    return damage


def _descending(ends: np.ndarray) -> np.ndarray:
    return np.concatenate([ends[:3][::-1], ends[3:]])


def _beyond(ends: np.ndarray) -> np.ndarray:
    return ends + 2**40


def _bytes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    content = [text.encode() for text in texts]
    return np.frombuffer(b"".join(content), np.uint8), np.cumsum([len(text) for text in content])


_NO_METADATA = _bytes(["{"] * 24)
_DAMAGED = {
    "missing": absent,
    "truncated": cut(-9),
    "truncated header": cut(100),
    "bit flip in header": flipped(40),
    "bit flip in codes": flipped(-5),
    "unknown version": _header("__metadata__", version="2"),
    "5,000-digit version": _header("__metadata__", version=LARGE_NUMBER),
    "unknown format": _header("__metadata__", format="other"),
    "header of 10,000 brackets": replaced(len(DEEP).to_bytes(8, "little") + DEEP.encode()),
    "zero bits": _written(bits=0),
    "a trillion bits": _written(bits=10**12),
    "codes shorter than declared": _written(bits=64),
    "codes in two columns": _written(words=lambda words: np.repeat(words, 2, axis=1)),
    "one-dimensional codes": _written(words=lambda words: words[:, 0].copy()),
    "signed codes": _written(words=lambda words: words.astype(np.int64)),
    "fewer codes than names": _written(words=lambda words: words[:-1].copy()),
    "names end beyond the text": _written(ids_ends=_beyond),
    "names end before they begin": _written(ids_ends=_descending),
    "names begin before the text": _written(ids_ends=lambda ends: ends - 100),
    "metadata ends beyond the text": _written(metadata_ends=_beyond),
    "fewer metadata entries than names": _written(metadata_ends=lambda ends: ends[:-1].copy()),
    "negative array shape": _header("words", shape=[-24, -1]),
    "fractional array shape": _header("words", shape=[24.0, 1]),
    "array of 2^128 items": _header("words", shape=[2**64, 2**64], data_offsets=[0, 0]),
    "array beyond the end of the file": _header("ids.text", shape=[2**40], data_offsets=[0, 2**40]),
    "array before the start of the file": _header("words", data_offsets=[-96, 0]),
    "misaligned array": _header("words", data_offsets=[1, 97]),
    "unknown array type": _header("words", dtype="F99"),
    "notes in a list": _written(about=["folder"]),
    "numeric note": _written(about={"folder": 1}),
    **{what: replaced(content) for what, content in GARBAGE.items()},
}


def _of_few_bits(path: Path) -> None:
    index = PrefixIndex.load(path)
    PrefixIndex.build(index.codes[:, :1].copy(), list(index.ids), 8, about=index.about).save(path)


def _changed(damage: Damage) -> Make:
    """An index from which an image was removed, and the file then damaged."""

    def both(path: Path) -> None:
        index = PrefixIndex.load(path)
        index.remove([index.ids[0]])
        index.save(path)
        damage(path)

    return _searched(both)


def _is_as_before(here: Path, good: Good, _: str) -> bool:
    index = PrefixIndex.load(here / good.index.name)
    return list(index.items()) == list(PrefixIndex.load(good.index).items())


def _unfinished(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-24] + bytes(24))  # as a file system leaves what did not arrive


CASES = [
    *(
        accepted(f"index file: last change {what}", _changed(damage), _is_as_before)
        for what, damage in {"truncated": cut(-1), "unterminated": cut(-24), "not flushed": _unfinished}.items()
    ),
    refused("index file: last change damaged", _changed(flipped(-100)), "good.index"),
    *(refused(f"index file: {what}", _searched(damage), "good.index") for what, damage in _DAMAGED.items()),
    refused(
        "index file: folder instead of file",
        lambda here, good: ["search", here, good.image],
        "is a folder without an index",
    ),
    refused("index file: deleted model", _searched(_noted(model="/gone/away")), "/gone/away"),
    refused("index file: different model", _searched(_noted(model_fingerprint="0" * 32)), "a different model"),
    refused("index file: different folder", _updated(_noted(folder="/gone/away")), "/gone/away"),
    refused("index file: different code length", _updated(_of_few_bits), "8 bits"),
    refused(
        "index file: metadata not JSON",
        _updated(_written(metadata_text=lambda _: _NO_METADATA[0], metadata_ends=lambda _: _NO_METADATA[1])),
        "metadata of 'a/",
    ),
]
