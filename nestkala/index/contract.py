"""The interface of an index to the commands and the web page, whatever engine searches it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..codes import check_packed
from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number

if TYPE_CHECKING:
    from .prefix_index import PrefixIndex


@dataclass(frozen=True, eq=False)
class Hits:
    """The results of a search, ranked for each query.

    Attributes:
        ids: ids of the items: lists of k, or for a radius search of varying length.
        distances: number of differing bits, int32 (Q, k), or for a radius search a list of arrays; with `rescore`, the
            cost of the differing bits, float32.
    """

    ids: list[list[str]]
    distances: NDArray[Any] | list[NDArray[Any]]


class SearchIndex(Protocol):
    """Codes with ids and a little metadata: a `PrefixIndex`, a `MilvusIndex` or a `PostgresIndex`."""

    bits: int
    """code length in bits"""

    about: dict[str, str]
    """notes on the index"""

    @property
    def lengths(self) -> Sequence[int]:
        """The prefix lengths that can be searched, ascending."""

    def __len__(self) -> int: ...

    def check_ids(self, ids: Iterable[str]) -> None:
        """Raise NestKALAError if one of them cannot be an id in this index."""

    def items(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The ids with their metadata."""

    def get(self, name: str) -> tuple[NDArray[np.uint8], dict[str, Any]] | None:
        """The packed code (1, bytes) and the metadata of the item with this id, or None."""

    def local(self) -> "PrefixIndex":
        """The same items as an in-memory index."""

    def add(
        self, codes: NDArray[np.uint8], ids: Iterable[str], metadata: Iterable[Mapping[str, Any]] | None = None
    ) -> None:
        """Add items."""

    def extend(self, others: Iterable["PrefixIndex"]) -> None:
        """Add the items of other indexes with the same code length."""

    def remove(self, ids: Iterable[str]) -> None:
        """Remove the items with these ids."""

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
        """The k nearest items to each query, among those that satisfy the conditions `where` (`Condition`)."""

    def search_radius(
        self, codes: NDArray[np.uint8], radius: int, bits: int | None = None, *, where: Sequence[str] = ()
    ) -> Hits:
        """All items within a distance of each query, among those that satisfy the conditions `where`."""


def checked_shortlist(k: int, shortlist: int | None, rescored: bool) -> int:
    """How many items a search finds before it re-ranks them; k if it does not re-rank.

    Raises:
        NestKALAError: a number is out of range.
    """
    if not is_whole_number(k, 1):
        raise NestKALAError(f"k must be a whole number of 1 or more, not {k!r}")
    if shortlist is None:
        return int(10 * k if rescored else k)
    if not is_whole_number(shortlist, k):
        raise NestKALAError(f"shortlist must be at least k ({k}), not {shortlist}")
    return int(shortlist)


def check_radius(radius: int) -> None:
    """Raise NestKALAError unless radius is a whole number of 0 or more."""
    if not is_whole_number(radius, 0):
        raise NestKALAError(f"radius must be a whole number of 0 or more, not {radius!r}")


def check_queries(codes: NDArray[np.uint8], bits: int) -> None:
    """Raise NestKALAError unless these are packed codes of at least `bits` bits."""
    check_packed(codes, "queries")
    if 8 * codes.shape[1] < bits:
        raise NestKALAError(f"queries have {8 * codes.shape[1]} bits, fewer than the {bits} to compare")


def checked_relaxed(rescore: NDArray[np.floating] | torch.Tensor, num: int, bits: int) -> NDArray[np.floating[Any]]:
    """Relaxed queries (num, bits) as an array. Raises NestKALAError for any other shape."""
    h = np.asarray(rescore.detach().cpu().float() if isinstance(rescore, torch.Tensor) else rescore)
    if h.shape != (num, bits):
        raise NestKALAError(f"rescore must be relaxed codes ({num}, {bits}), not {h.shape}")
    return h
