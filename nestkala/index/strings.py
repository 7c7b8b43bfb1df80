"""Many strings in two arrays that can be memory-mapped."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..utils.compiled import compiled

_BLOCK = 2**20
"""Maximum number of Python strings at a time, which take ten times the memory."""
_FEW = 2**12
"""Up to this many strings, Python is faster than loading Numba."""


@dataclass(frozen=True, eq=False)
class Strings:
    """A sequence of strings.

    Attributes:
        text: all strings concatenated, in UTF-8, uint8.
        ends: where each string ends in `text`, int64 (N,).
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> Self:
        """Make from strings. Undecodable bytes, as in some file names, are preserved."""
        rest, parts = iter(strings), [cls(np.empty(0, np.uint8), np.empty(0, np.int64))]
        while some := [string.encode("utf-8", "surrogateescape") for string in islice(rest, _BLOCK)]:
            ends = np.cumsum([len(string) for string in some], dtype=np.int64)
            parts.append(cls(np.frombuffer(b"".join(some), np.uint8), ends))
        return cls.concatenated(parts)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> str:
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = self.ends[place - 1] if place else 0
        return self.text[start : self.ends[place]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            stop = min(start + _BLOCK, len(self))
            begin = int(self.ends[start - 1]) if start else 0
            yield from Strings(self.text[begin : self.ends[stop - 1]], self.ends[start:stop] - begin).as_list()

    def as_list(self) -> list[str]:
        """All strings, faster than by iteration."""
        text, ends = self.text.tobytes(), self.ends.tolist()
        starts = [0, *ends[:-1]]
        return [text[a:b].decode("utf-8", "surrogateescape") for a, b in zip(starts, ends, strict=True)] if ends else []

    def find(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The position of each name, (n,); -1 if it does not exist."""
        asked = Strings.of(names)
        if len(self) <= _FEW:
            places = {name: place for place, name in enumerate(self.as_list())}
            return np.array([places.get(name, -1) for name in names], np.int64)
        if not len(asked) or not len(self):
            return np.full(len(asked), -1, np.int64)
        # A table of the last bits of the wanted hashes rules out nearly all others without sorting.
        last_bits = np.uint64((1 << (16 * len(asked)).bit_length()) - 1)
        table = np.zeros(int(last_bits) + 1, bool)
        table[fnv1a(asked.text, asked.ends) & last_bits] = True
        candidates = np.flatnonzero(table[self._hashes & last_bits])
        found = dict(zip(self.take(candidates).as_list(), candidates.tolist(), strict=True))
        return np.array([found.get(name, -1) for name in names], np.int64)

    def duplicate(self) -> str | None:
        """A string that occurs twice, or None."""
        order = np.argsort(self._hashes, kind="stable")
        hashes = self._hashes[order]
        same = hashes[1:] == hashes[:-1]
        seen = set[str]()
        for place in order[np.append(same, False) | np.append(False, same)].tolist() if same.any() else ():
            name = self[place]
            if name in seen:
                return name
            seen.add(name)
        return None

    @cached_property
    def _hashes(self) -> NDArray[np.uint64]:
        return fnv1a(self.text, self.ends)

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> "Strings":
        """The strings at these positions, in this order."""
        chosen = np.asarray(places, np.int64)
        # Only for the chosen ones: a search takes ten of ten million.
        starts = np.where(chosen > 0, self.ends[chosen - 1], 0) if len(chosen) else np.empty(0, np.int64)
        lengths = self.ends[chosen] - starts
        ends = lengths.cumsum()
        if len(chosen) <= _FEW:
            pieces = [self.text[begin : begin + length] for begin, length in zip(starts, lengths, strict=True)]
            return Strings(np.concatenate([self.text[:0], *pieces]), ends)
        return Strings(_gathered(self.text, starts, ends), ends)

    @classmethod
    def concatenated(cls, parts: Sequence["Strings"]) -> Self:
        """Concatenate several sequences."""
        starts = np.cumsum([0, *(len(part.text) for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts, strict=False)]
        return cls(np.concatenate([part.text for part in parts]), np.concatenate(ends))


@compiled
def _gathered(text: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The pieces of `text` that begin at `starts`, concatenated so that they end at `ends`."""
    found = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    begin = 0
    for n in range(len(ends)):
        for place in range(begin, ends[n]):
            found[place] = text[starts[n] + place - begin]
        begin = ends[n]
    return found


@compiled
def fnv1a(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The FNV-1a hash of each string (Fowler, Noll and Vo), uint64 (N,)."""
    hashes = np.empty(len(ends), np.uint64)
    start = 0
    for n in range(len(ends)):
        digest = np.uint64(0xCBF29CE484222325)
        for place in range(start, ends[n]):
            digest = (digest ^ np.uint64(text[place])) * np.uint64(0x100000001B3)
        hashes[n] = digest
        start = ends[n]
    return hashes


def as_text(name: str) -> str:
    """A file name for display and JSON, with undecodable bytes replaced by U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
