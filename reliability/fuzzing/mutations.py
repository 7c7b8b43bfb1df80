"""Random damage to valid files."""

import re
from collections.abc import Callable, Sequence

import numpy as np

_NUMBER = re.compile(rb"\d+")
_NUMBERS = (0, 1, 2, 7, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**12, 10**30)
_BYTES = [bytes([code]) for code in b"\0\xff\n\"{}[]:,-'"] + [b"&a ", b"*a", b"<<", b"!!", b"\xed\xb3\xbf"]
_MOST = 2**20


def mutated(content: bytes, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """One to four changes to a file; pieces of `others` may be inserted."""
    for _ in range(rng.integers(1, 5)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(content, others, rng)[:_MOST]
    return content


def _flip(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, max(1, len(changed)), rng.integers(1, 5)).tolist() if changed else ():
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def _delete(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start = _place(content, rng)
    return content[:start] + content[start + int(rng.integers(1, 64)) :]


def _repeat(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start = _place(content, rng)
    piece = content[start : start + int(rng.integers(1, 64))]
    return content[:start] + piece * int(rng.choice([2, 3, 2000])) + content[start:]


def _insert(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    start = _place(content, rng)
    piece = _BYTES[rng.integers(len(_BYTES))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 16)))
    return content[:start] + piece * int(rng.choice([1, 1, 5000])) + content[start:]


def _splice(content: bytes, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _other_number(content: bytes, _: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Another number in a text file, or in the JSON header of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    if not 8 + size <= len(content):
        return _renumbered(content, rng)
    header = _renumbered(content[8 : 8 + size], rng)
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _renumbered(text: bytes, rng: np.random.Generator) -> bytes:
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    chosen = found[rng.integers(len(found))]
    near = int(chosen[0][:18]) + int(rng.integers(-2, 3))
    number = near if rng.random() < 0.5 else int(rng.choice([-1, 1])) * _NUMBERS[rng.integers(len(_NUMBERS))]
    return text[: chosen.start()] + str(number).encode() + text[chosen.end() :]


def _place(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(0, len(content) + 1))


_CHANGES: tuple[Callable[[bytes, Sequence[bytes], np.random.Generator], bytes], ...] = (
    _flip,
    _cut,
    _delete,
    _repeat,
    _insert,
    _splice,
    _other_number,
    _other_number,
)
