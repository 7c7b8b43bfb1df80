"""What an index is to the commands and the web page, whichever engine searches it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codes import check_packed
from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number

if TYPE_CHECKING:
    from .prefix_index import PrefixIndex


@dataclass(frozen=True, eq=False)
class Hits:
    """What a search found, for each query in the order of its ranking.

    Attributes:
        ids: of the items, lists of k, or within a radius of as many as there are.
        distances: how many bits differ, int32 (Q, k), or within a radius a list of arrays; with `rescore` what those
            that differ cost, float32.
    """

    ids: list[list[str]]
    distances: NDArray[Any] | list[NDArray[Any]]


class SearchIndex(Protocol):
    """Codes with ids and a little metadata each: a `PrefixIndex`, or a `MilvusIndex`."""

    bits: int
    """length of the codes"""

    about: dict[str, str]
    """what was told of the index itself"""

    @property
    def lengths(self) -> Sequence[int]:
        """The prefix lengths that it can be searched at, ascending."""

    def __len__(self) -> int: ...

    def check_ids(self, ids: Iterable[str]) -> None:
        """Raise NestKALAError if one of them is a string that cannot be an id here."""

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata."""

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item of this id; None where there is no such item."""

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items."""

    def extend(self, others: Iterable["PrefixIndex"]) -> None:
        """Add the items of other indexes of codes of the same length."""

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items of these ids."""

    def search(
        self,
        codes: NDArray[np.uint8],
        k: int = 10,
        bits: int | None = None,
        *,
        shortlist: int | None = None,
        rescore: NDArray[np.floating] | None = None,
        where: Sequence[str] = (),
    ) -> Hits:
        """The k nearest items to each query, of those for which the conditions `where` hold (`Condition`)."""

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items within a distance of each query, of those for which the conditions `where` hold."""


def checked_shortlist(k: int, shortlist: int | None, rescored: bool) -> int:
    """How many items a search finds before it ranks them anew: k where it does not.

    Raises:
        NestKALAError: numbers out of their range.
    """
    if not is_whole_number(k, 1):
        raise NestKALAError(f"k must be a whole number of 1 or more, not {k!r}")
    if shortlist is None:
        return int(10 * k if rescored else k)
    if not is_whole_number(shortlist, k):
        raise NestKALAError(f"shortlist must be k, {k}, or more, not {shortlist}")
    return int(shortlist)


def check_radius(radius: int) -> None:
    """Raise NestKALAError unless it is a whole number of 0 or more."""
    if not is_whole_number(radius, 0):
        raise NestKALAError(f"radius must be a whole number of 0 or more, not {radius!r}")


def check_queries(codes: NDArray[np.uint8], bits: int) -> None:
    """Raise NestKALAError unless these are packed codes of `bits` bits or more."""
    check_packed(codes, "queries")
    if 8 * codes.shape[1] < bits:
        raise NestKALAError(f"queries have {8 * codes.shape[1]} bits, fewer than the {bits} that are compared")
