"""Lists of images, and the class names next to them."""

import json
from pathlib import Path

from .case import Case, Make, accepted, refused
from .good import Good, write_images
from .spoiling import NO_FORMATS

_NAMES = "cat\nemu\n"
_SMALL = ("--epochs", "1", "--shots", "2", "--lengths", "4", "--batch-size", "2", "--cache-gb", "0", "--workers", "0")


def _lines(numbers: range, between: str = " ", end: str = "\n") -> str:
    return "".join(between.join((f"{'ab'[n % 2]}/{n // 2}.png", str(1 - n % 2), str(n % 2))) + end for n in numbers)


_TRAIN, _TEST = _lines(range(16)), _lines(range(16, 24))


def _files(**files: str | bytes | None) -> Make:
    """Lists that are good except for those given; None for no file."""

    def make(here: Path, _: Good) -> list[str | Path]:
        write_images(here / "data")
        for name, text in ({"train": _TRAIN, "test": _TEST, "classnames": _NAMES} | files).items():
            if text is not None:
                (here / "data" / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["train", "--data", here / "data", "--output", here / "out", *_SMALL]

    return make


def _is_read_as(numbers: range) -> Case:
    def is_right(here: Path, _: Good, __: str) -> bool:
        split = json.loads((here / "out" / "split.json").read_text())
        names = [f"{'ab'[n % 2]}/{n // 2}.png" for n in numbers]
        classes = json.loads((here / "out" / "model.json").read_text())["class_names"]
        return sorted(split["query"]) == sorted(names) and classes == ["cat", "emu"]

    lines = {name: _lines(part, "\t", "\r\n") for name, part in (("train", range(16)), ("test", numbers))}
    text = {name: ("\ufeff" + text + "\r\n\r\n").encode() for name, text in lines.items()}
    return accepted(
        "lists with tabs, CRLF, a byte order mark and blank lines",
        _files(**text, classnames=b"\xef\xbb\xbfcat\r\n\r\n emu \r\n"),
        is_right,
    )


def _called(here: Path, _: Good, __: str) -> bool:
    """The query and gallery lists are read under the names used in KALAHash's data."""
    split = json.loads((here / "out" / "split.json").read_text())
    return len(split["query"]) == 8 and len(split["gallery"]) == 16


def _named(*names: bytes) -> dict[str, bytes]:
    return {"classnames": b"\n".join(names) + b"\n"}


CASES = [
    refused("a list with a label too few", _files(train=_TRAIN + "a/9.png 1\n"), "train.txt:17"),
    refused("a list with a label too many", _files(train=_TRAIN + "a/9.png 1 0 1\n"), "a/9.png 1"),
    refused(
        "a list with a label of 2",
        _files(train=_TRAIN + "a/9.png 1 2\n"),
        "must be 0 or 1, not '2'",
    ),
    refused("a list with a label of another script", _files(train=_TRAIN + "a/9.png 1 \u0661\n"), "train.txt:17"),
    refused("a list of an image that is not there", _files(train=_TRAIN + "a/99.png 1 0\n"), "'a/99.png'"),
    refused("a list of a folder", _files(train=_TRAIN + "a 1 0\n"), "'a'"),
    refused("a list with a zero byte in a name", _files(train=_TRAIN.encode() + b"a/\0.png 1 0\n"), "train.txt:17"),
    refused("a list of an image twice", _files(train=_TRAIN + "a/0.png 1 0\n"), "'a/0.png' is already listed"),
    refused("two lists at odds on labels", _files(database="a/0.png 0 1\n"), "'a/0.png' has different labels"),
    refused("queries that are trained on", _files(test=_TEST + "a/0.png 1 0\n"), "'a/0.png'"),
    refused("a list of blank lines", _files(test="\n\r\n  \n"), "test.txt"),
    *(
        refused(f"a list that is {what}", _files(test=content or b"\n"), "test.txt")
        for what, content in NO_FORMATS.items()
    ),
    refused("class names without lists", _files(train=None, test=None), "train.txt"),
    refused("lists without class names", _files(classnames=None), "classnames.txt"),
    refused("no class name", _files(**_named(b"")), "classnames.txt"),
    refused("a class name twice", _files(**_named(b"cat", b"cat ")), "'cat'"),
    refused("a class name that is no UTF-8", _files(**_named(b"cat", b"\xff")), "'\\udcff'"),
    refused("a class name of 10,000 letters", _files(**_named(b"cat", b"x" * 10_000)), "10000 characters"),
    _is_read_as(range(16, 24)),
    accepted("lists called query and gallery", _files(test=None, query=_TEST, gallery=_TRAIN), _called),
    refused("a list of another name", _files(val=_TEST), "val.txt"),
    refused("two lists of queries", _files(query=_TEST), "test.txt and query.txt"),
    refused(
        "a class name in two of Unicode's forms", _files(**_named("caf\u00e9".encode(), "cafe\u0301".encode())), "caf"
    ),
]
