"""Lists of images, and the class names next to them."""

import json
from pathlib import Path

from .case import Case, accepted, refused
from .damage import GARBAGE, replaced
from .good import SMALL, Good, Make, on_path, write_images

_NAMES = "cat\nemu\n"


def _lines(numbers: range, between: str = " ", end: str = "\n") -> str:
    return "".join(between.join((f"{'ab'[n % 2]}/{n // 2}.png", str(1 - n % 2), str(n % 2))) + end for n in numbers)


_TRAIN, _TEST = _lines(range(16)), _lines(range(16, 24))


def _files(**files: str | bytes | None) -> Make:
    """Lists that are good except for those given; None for no file."""

    def write(folder: Path) -> None:
        write_images(folder)
        for name, text in ({"train": _TRAIN, "test": _TEST, "classnames": _NAMES} | files).items():
            if text is not None:
                replaced(text)(folder / f"{name}.txt")

    return on_path("data", write, f"train --data PATH --output OUT {SMALL}")


def _is_read_as(numbers: range) -> Case:
    def is_right(here: Path, _: Good, __: str) -> bool:
        split = json.loads((here / "out" / "split.json").read_text())
        names = [f"{'ab'[n % 2]}/{n // 2}.png" for n in numbers]
        classes = json.loads((here / "out" / "model.json").read_text())["class_names"]
        return sorted(split["query"]) == sorted(names) and classes == ["cat", "emu"]

    lines = {name: _lines(part, "\t", "\r\n") for name, part in (("train", range(16)), ("test", numbers))}
    text = {name: ("\ufeff" + text + "\r\n\r\n").encode() for name, text in lines.items()}
    return accepted(
        "list: tabs, CRLF, byte order mark and blank lines",
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
    refused("list: one label too few", _files(train=_TRAIN + "a/9.png 1\n"), "train.txt:17"),
    refused("list: one label too many", _files(train=_TRAIN + "a/9.png 1 0 1\n"), "a/9.png 1"),
    refused(
        "list: label of 2",
        _files(train=_TRAIN + "a/9.png 1 2\n"),
        "must be 0 or 1, not '2'",
    ),
    refused("list: non-ASCII digit", _files(train=_TRAIN + "a/9.png 1 \u0661\n"), "train.txt:17"),
    refused("list: missing image", _files(train=_TRAIN + "a/99.png 1 0\n"), "'a/99.png'"),
    refused("list: folder instead of image", _files(train=_TRAIN + "a 1 0\n"), "'a'"),
    refused("list: NUL in name", _files(train=_TRAIN.encode() + b"a/\0.png 1 0\n"), "train.txt:17"),
    refused("list: duplicate image", _files(train=_TRAIN + "a/0.png 1 0\n"), "'a/0.png' is already listed"),
    refused("list: conflicting labels", _files(database="a/0.png 0 1\n"), "'a/0.png' has different labels"),
    refused("list: query in training set", _files(test=_TEST + "a/0.png 1 0\n"), "'a/0.png'"),
    refused("list: blank lines only", _files(test="\n\r\n  \n"), "test.txt"),
    *(refused(f"list: {what}", _files(test=content or b"\n"), "test.txt") for what, content in GARBAGE.items()),
    refused("list: missing", _files(train=None, test=None), "train.txt"),
    refused("class names: missing", _files(classnames=None), "classnames.txt"),
    refused("class names: none", _files(**_named(b"")), "classnames.txt"),
    refused("class names: duplicate", _files(**_named(b"cat", b"cat ")), "'cat'"),
    refused("class names: not UTF-8", _files(**_named(b"cat", b"\xff")), "'\\udcff'"),
    refused("class names: 10,000 characters", _files(**_named(b"cat", b"x" * 10_000)), "10000 characters"),
    _is_read_as(range(16, 24)),
    accepted("list: query and gallery as names", _files(test=None, query=_TEST, gallery=_TRAIN), _called),
    refused("list: unknown name", _files(val=_TEST), "val.txt"),
    refused("list: two lists of queries", _files(query=_TEST), "test.txt and query.txt"),
    refused(
        "class names: same name in two Unicode forms",
        _files(**_named("caf\u00e9".encode(), "cafe\u0301".encode())),
        "caf",
    ),
]
