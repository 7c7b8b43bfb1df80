"""Folders written by `nestkala encode`."""

from collections.abc import Callable
from pathlib import Path

from nestkala.index import PrefixIndex

from .case import Make, refused
from .good import Good, copied
from .spoiling import DEEP, NO_FORMATS, Spoil, absent, cut, edited, flipped, replaced


def _indexed(name: str, spoil: Spoil) -> Make:
    """Create an index from a copy with one damaged file."""

    def make(here: Path, good: Good) -> list[str | Path]:
        shards = copied(good.shards, here)
        spoil(shards / name)
        return ["index", shards, here / "out.index"]

    return make


def _gone_on(spoil: Callable[[Path], object], size: str = "10") -> Make:
    """Continue encoding in a damaged copy with a missing shard."""

    def make(here: Path, good: Good) -> list[str | Path]:
        shards = copied(good.shards, here)
        (shards / "000001.index").unlink()
        spoil(shards)
        return ["encode", good.images, shards, "--model", good.run, "--shard-size", size]

    return make


def _listing(line: str) -> Callable[[Path], object]:
    """Another line for the 15th image, which is in the second shard."""

    def spoil(folder: Path) -> None:
        lines = (folder / "images.jsonl").read_text().splitlines()
        lines[14] = line
        (folder / "images.jsonl").write_text("\n".join(lines) + "\n")

    return spoil


def _not_told(folder: Path) -> None:
    path = folder / "000000.index"
    shard = PrefixIndex.load(path)
    del shard.about["unreadable"]
    shard.save(path)
    (folder / "000001.index").write_bytes(path.read_bytes())


_PLANS = {
    "that is 10,000 brackets": (replaced(DEEP), "encoding.json"),
    "of another version": (edited(version=9), "version 9"),
    "of shards of 2^64 images": (edited(shard_size=2**64), "shard_size"),
    "of a trillion images": (edited(images=10**12), "images.jsonl"),
    "of shards of no image": (edited(shard_size=0), "shard_size"),
    "of no lengths": (edited(lengths=[]), "lengths"),
    "of a billion bits": (edited(lengths=[10**9]), "lengths"),
    "that tells of itself in numbers": (edited(about={"folder": 1}), "about"),
    **{f"that is {what}": (replaced(content), "encoding.json") for what, content in NO_FORMATS.items()},
}
_LINES = {
    "no JSON": "{",
    "a number": "1",
    "a number for a name": '[1, {"size": 1}]',
    "no metadata": '["a/1.png", null]',
    "a NUL in a name": '["a\\u0000b.png", {"size": 1}]',
    "a path upwards": '["../../../etc/passwd", {"size": 1}]',
    "a path from the root": '["/etc/passwd", {"size": 1}]',
    "10,000 brackets": DEEP,
}

CASES = [
    *(
        refused(f"a plan {what}", _indexed("encoding.json", spoil), culprit)
        for what, (spoil, culprit) in _PLANS.items()
    ),
    refused("shards of which one is missing", _indexed("000001.index", absent), "1 of 3 shards"),
    refused("a shard that is cut short", _indexed("000001.index", cut(-9)), "000001.index"),
    refused("a shard with a bit flipped", _indexed("000001.index", flipped(-5)), "000001.index"),
    *(
        refused(f"a list of images with {what}", _gone_on(_listing(line)), "images.jsonl")
        for what, line in _LINES.items()
    ),
    refused(
        "a list of images that is gone", _gone_on(lambda folder: (folder / "images.jsonl").unlink()), "images.jsonl"
    ),
    refused("a shard that does not tell what was unreadable", _gone_on(_not_told), "000000.index"),
    refused(
        "shards of another size", lambda here, good: [*_gone_on(lambda _: None)(here, good)[:-1], "11"], "shard size"
    ),
]
