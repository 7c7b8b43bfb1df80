"""Ways to damage a file."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]


def replaced(content: bytes | str) -> Damage:
    """Replace the content."""
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def cut(size: int) -> Damage:
    """Keep only the first bytes; if `size` is negative, all but the last."""
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def absent(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def flipped(place: int) -> Damage:
    """Flip one bit of one byte."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 0x10
        path.write_bytes(bytes(content))

    return damage


def edited(**values: Any) -> Damage:
    """Change values in a JSON file."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


class Trap:
    """Runs a command when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch unpickled",)


PICKLE = b"cos\nsystem\n(Vtouch unpickled\ntR."  # the same, as pickle's first protocol writes it
DEEP = "[" * 10_000
LARGE_NUMBER = "9" * 5000
OVERSIZED_HEADER = struct.pack("<Q", 2**62) + b"{}"
GARBAGE = {
    "text": b"hello, world\n" * 40,
    "empty": b"",
    "pickle": PICKLE,
    "oversized header": OVERSIZED_HEADER,
}
