"""Folders written by `nestkala encode`."""

from pathlib import Path

from nestkala.index import PrefixIndex

from .case import refused
from .damage import DEEP, GARBAGE, Damage, absent, cut, edited, flipped, replaced
from .good import Make, on_copy


def _indexed(name: str, damage: Damage) -> Make:
    """Create an index from a copy with one damaged file."""
    return on_copy("shards", lambda shards: damage(shards / name), "index COPY NEW")


def _continued(damage: Damage, size: str = "10") -> Make:
    """Continue encoding in a damaged copy with a missing shard."""

    def without_a_shard(shards: Path) -> None:
        (shards / "000001.index").unlink()
        damage(shards)

    return on_copy("shards", without_a_shard, f"encode IMAGES COPY --model RUN --shard-size {size}")


def _listing(line: str) -> Damage:
    """Another line for the 15th image, which is in the second shard."""

    def damage(folder: Path) -> None:
        lines = (folder / "images.jsonl").read_text().splitlines()
        lines[14] = line
        (folder / "images.jsonl").write_text("\n".join(lines) + "\n")

    return damage


def _without_unreadable(folder: Path) -> None:
    path = folder / "000000.index"
    shard = PrefixIndex.load(path)
    del shard.about["unreadable"]
    shard.save(path)
    (folder / "000001.index").write_bytes(path.read_bytes())


_PLANS = {
    "10,000 brackets": (replaced(DEEP), "encoding.json"),
    "unknown version": (edited(version=9), "version 9"),
    "2^64 images per shard": (edited(shard_size=2**64), "shard_size"),
    "a trillion images": (edited(images=10**12), "images.jsonl"),
    "zero images per shard": (edited(shard_size=0), "shard_size"),
    "no lengths": (edited(lengths=[]), "lengths"),
    "a billion bits": (edited(lengths=[10**9]), "lengths"),
    "numeric note": (edited(about={"folder": 1}), "about"),
    **{what: (replaced(content), "encoding.json") for what, content in GARBAGE.items()},
}
_LINES = {
    "invalid JSON": "{",
    "number instead of an entry": "1",
    "number instead of a name": '[1, {"size": 1}]',
    "missing metadata": '["a/1.png", null]',
    "NUL in a name": '["a\\u0000b.png", {"size": 1}]',
    "path traversal": '["../../../etc/passwd", {"size": 1}]',
    "absolute path": '["/etc/passwd", {"size": 1}]',
    "10,000 brackets": DEEP,
}

CASES = [
    *(
        refused(f"encoding.json: {what}", _indexed("encoding.json", damage), culprit)
        for what, (damage, culprit) in _PLANS.items()
    ),
    refused("shards: one missing", _indexed("000001.index", absent), "1 of 3 shards"),
    refused("shard: truncated", _indexed("000001.index", cut(-9)), "000001.index"),
    refused("shard: bit flip", _indexed("000001.index", flipped(-5)), "000001.index"),
    *(refused(f"images.jsonl: {what}", _continued(_listing(line)), "images.jsonl") for what, line in _LINES.items()),
    refused("images.jsonl: missing", _continued(lambda folder: (folder / "images.jsonl").unlink()), "images.jsonl"),
    refused("shard: no list of unreadable images", _continued(_without_unreadable), "000000.index"),
    refused("shards: different size", _continued(lambda _: None, "11"), "shard size"),
]
