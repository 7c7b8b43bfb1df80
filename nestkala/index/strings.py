"""Many strings in two arrays, which a file can hold and memory-map."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Strings:
    """A sequence of strings.

    Attributes:
        text: all of them in UTF-8, one after the other, uint8.
        ends: where each ends in `text`, int64 (N,).
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, strings: Iterable[str]) -> Self:
        """Of these strings; what is no text, as some file names, comes back as it was."""
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, place: int) -> str:
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = self.ends[place - 1] if place else 0
        return self.text[start : self.ends[place]].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[place] for place in range(len(self)))

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> "Strings":
        """Those at these places, in this order."""
        chosen = np.asarray(places, np.int64)
        # Of those chosen alone: a search takes ten of ten million.
        starts = np.where(chosen > 0, self.ends[chosen - 1], 0) if len(chosen) else np.empty(0, np.int64)
        lengths = self.ends[chosen] - starts
        ends = lengths.cumsum()
        first = np.repeat(starts - (ends - lengths), lengths)
        return Strings(self.text[first + np.arange(len(first))], ends)

    def __add__(self, other: "Strings") -> "Strings":
        after = self.ends[-1] if len(self) else 0
        return Strings(np.concatenate([self.text, other.text]), np.concatenate([self.ends, other.ends + after]))


def as_text(name: str) -> str:
    """A file's name for people and JSON: what is no text in it becomes a question mark in a box."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
