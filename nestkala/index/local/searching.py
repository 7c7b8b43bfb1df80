"""Search several segments as if they were one: each is searched, and the results are merged exactly.

The order is that of one sorted array of all items: by distance, then by full code, then by the order in which they were
added, which is the order of the segments and of the positions within each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ...codes import pack
from ...utils.errors import NestKALAError
from ...utils.limits import is_whole_number
from ...utils.packed_words import Words, ordered_words
from ..conditions import Condition, check_keys, parse_conditions
from ..contract import Hits, check_queries, check_radius, checked_relaxed, checked_shortlist
from ..slices import Positions, best, distances_to, soft_distances_to
from .segment import Segment
from .sorted_codes import Method


@dataclass(frozen=True, eq=False)
class _Found:
    """Items found for each query: segment and position, (Q, m) each, and full code, (Q, m, W)."""

    segments: NDArray[np.int64]
    places: Positions
    words: Words

    def take(self, order: Positions) -> "_Found":
        """The items at these positions of each row, (Q, k)."""
        return _Found(
            np.take_along_axis(self.segments, order, axis=1),
            np.take_along_axis(self.places, order, axis=1),
            np.take_along_axis(self.words, order[..., None], axis=1),
        )


def search_segments(
    segments: Sequence[Segment],
    length: int,
    codes: NDArray[np.uint8],
    k: int,
    bits: int | None,
    shortlist: int | None,
    rescore: NDArray[np.floating] | torch.Tensor | None,
    method: Method,
    where: Sequence[str],
) -> Hits:
    """`PrefixIndex.search` in segments of codes of `length` bits."""
    bits = checked_bits(bits, length)
    shortlist = checked_shortlist(k, shortlist, rescore is not None)
    if method not in get_args(Method):
        raise NestKALAError(f"method must be auto, slices, tables or scan, not '{method}'")
    queries, conditions = query_words(codes, bits, length), _conditions(segments, where)
    segments = segments or [Segment.empty(length)]
    parts = [segment.nearest(queries, shortlist, bits, method, conditions) for segment in segments]
    if len(parts) == 1 and rescore is None and shortlist == k:
        near, distances = parts[0]
        names, each = segments[0].names_at(near.ravel()), near.shape[1]
        return Hits([names[each * q : each * (q + 1)] for q in range(len(near))], distances)
    ranking: NDArray[Any]
    found, ranking = _merged(segments, parts, shortlist)
    if rescore is not None or shortlist > k:
        pool = found.words.reshape(-1, found.words.shape[-1])
        num_queries, num_found = found.places.shape
        all_of_it = np.arange(len(pool)).reshape(num_queries, num_found)
        if rescore is not None:
            ranking = _soft_distances(pool, all_of_it, rescore, length)
        else:
            ranking = distances_to(pool, query_words(codes, length, length), all_of_it)
        order, ranking = best(np.broadcast_to(np.arange(num_found), (num_queries, num_found)), ranking, k)
        found = found.take(order)
    return Hits(_names(segments, found), ranking)


def search_segments_radius(
    segments: Sequence[Segment],
    length: int,
    codes: NDArray[np.uint8],
    radius: int,
    bits: int | None,
    where: Sequence[str],
) -> Hits:
    """`PrefixIndex.search_radius` in segments of codes of `length` bits."""
    bits = checked_bits(bits, length)
    check_radius(radius)
    queries, conditions = query_words(codes, bits, length), _conditions(segments, where)
    segments = segments or [Segment.empty(length)]
    ids: list[list[str]] = []
    distances: list[NDArray[Any]] = []
    for n in range(len(queries)):
        query = queries[n : n + 1]
        parts = [segment.within(query, min(radius, bits), bits, conditions) for segment in segments]
        found, ranking = _merged(segments, [(places[None], apart[None]) for places, apart in parts], None)
        ids += _names(segments, found)
        distances.append(ranking[0])
    return Hits(ids, distances)


def checked_bits(bits: int | None, length: int) -> int:
    """A prefix length (default: `length`). Raises NestKALAError unless it is 1 to `length`."""
    if bits is None:
        return length
    if not is_whole_number(bits, 1, length):
        raise NestKALAError(f"bits must be a whole number from 1 to {length} (the code length), not {bits!r}")
    return int(bits)


def query_words(codes: NDArray[np.uint8], bits: int, length: int) -> Words:
    """The first `bits` bits of packed codes, as words of codes of `length` bits with the other bits 0.

    Raises:
        NestKALAError: these are not packed codes, or they are too short.
    """
    check_queries(codes, bits)
    num_bytes = -(-bits // 8)
    whole = np.zeros((len(codes), -(-length // 8)), np.uint8)
    whole[:, :num_bytes] = codes[:, :num_bytes]
    whole[:, num_bytes - 1] &= 0xFF << -bits % 8 & 0xFF
    return ordered_words(whole)


def _conditions(segments: Sequence[Segment], where: Sequence[str]) -> tuple[Condition, ...]:
    """Parse conditions. Raises NestKALAError for a key that no item has."""
    conditions = tuple(parse_conditions(where))
    if conditions and any(map(len, segments)):
        keys = set[str]().union(*(segment.narrowed(conditions).keys for segment in segments))
        check_keys(conditions, keys)
    return conditions


def _merged(
    segments: Sequence[Segment], parts: Sequence[tuple[Positions, NDArray[Any]]], k: int | None
) -> tuple[_Found, NDArray[Any]]:
    """The first k of the results of all segments, or all of them, and their distances, (Q, m)."""
    near = np.concatenate([places for places, _ in parts], axis=1)
    distances = np.concatenate([distances for _, distances in parts], axis=1)
    words = np.concatenate([s.codes.words[places] for s, (places, _) in zip(segments, parts, strict=True)], axis=1)
    which = np.repeat(np.arange(len(parts)), [places.shape[1] for places, _ in parts])
    found = _Found(np.broadcast_to(which, near.shape), near, words)
    if len(parts) == 1:
        return found, distances
    keys = (*(words[..., w] for w in reversed(range(words.shape[2]))), distances)
    order = np.lexsort(keys, axis=-1)[:, :k]  # stable, so that ties stay in the order of the segments
    return found.take(order), np.take_along_axis(distances, order, axis=1)


def _soft_distances(
    pool: Words, near: Positions, relaxed: NDArray[np.floating] | torch.Tensor, length: int
) -> NDArray[np.float32]:
    h = checked_relaxed(relaxed, len(near), length)
    queries = query_words(pack(h), length, length)
    return soft_distances_to(pool, 8 * pool.dtype.itemsize, queries, near, np.abs(h, dtype=np.float32))


def _names(segments: Sequence[Segment], found: _Found) -> list[list[str]]:
    names = np.empty(found.places.shape, object)
    for n, segment in enumerate(segments):
        mine = found.segments == n
        names[mine] = segment.names_at(found.places[mine])
    return [list(row) for row in names]
