"""What distances mean in a collection: how near its images are to one another, and to a query, by chance.

Every collection differs. Among photographs of one wedding any two are alike; in an archive of fifty years two that
share a quarter of their bits are a find. So distances are compared with those of random pairs of the collection's own
images, and of images to their nearest neighbors.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codes import hamming, prefix, unpack
from ..index.prefix_index import PrefixIndex

_PAIRS = 20_000
_IMAGES = 1000
_USUAL = 0.8
"""Share of images whose nearest neighbor is near enough to be called alike."""
_RARE = 0.001
"""Unrelated images that come as near to a sentence, in all the collection, at the limit: one in a thousand collections.
Both were chosen on half of Caltech-101's draws; docs/searching.md says what they give on the others."""
_ROUNDING = 1e-3
"""Of sums of float32."""
_UPPER = NormalDist().cdf(1)
"""A normal distribution has one deviation between its median and this quantile."""


@dataclass(frozen=True, eq=False)
class Chance:
    """How near things are that need not be alike.

    Attributes:
        distances: of random pairs, ascending, (n,).
        limit: largest distance of what is nearer than chance; below 0 where nothing can be.
    """

    distances: NDArray[np.floating[Any]]
    limit: float

    def similarity(self, distances: NDArray[Any]) -> NDArray[np.float64]:
        """The share of random pairs that are farther apart than these distances, in percent, 0 to 100.

        At 50 two images are as much alike as any two, at 99.9 more than 999 of 1,000 random pairs.
        """
        nearer = np.searchsorted(self.distances, np.asarray(distances) + _ROUNDING, side="right")
        share: NDArray[np.float64] = 100 * (1 - nearer / max(1, len(self.distances)))
        return share

    def is_relevant(self, distances: NDArray[Any]) -> NDArray[np.bool_]:
        """Which distances are smaller than chance explains."""
        return np.asarray(distances) <= self.limit + _ROUNDING


def chance_of_pairs(index: PrefixIndex, bits: int | None = None, with_limit: bool = True, seed: int = 0) -> Chance:
    """What chance gives between two images of a collection, for queries that are images.

    Nearer than chance is what is at least as near as 80 % of the images are to their nearest neighbor, unless images
    that have nothing in common come as near: their distances are taken to be normal, and are estimated from the upper
    half of all random pairs' (an empirical null: Efron, "Large-Scale Simultaneous Hypothesis Testing", JASA 2004),
    where similar pairs do not count. A distance at which a query meets one of them or more, among all images of the
    collection, is chance.

    Args:
        index: of the collection; of fewer than three images nothing can be said, and everything is relevant.
        bits: prefix length that is compared; by default the whole code.
        with_limit: find the limit as well, which takes 1,000 searches; otherwise everything is relevant.
        seed: draws pairs and images.
    """
    bits, number = index.bits if bits is None else bits, len(index)
    if number < 3:
        return Chance(np.zeros(0), float(bits))
    rng = np.random.default_rng(seed)
    first, other = rng.integers(0, number, _PAIRS), rng.integers(0, number - 1, _PAIRS)
    other += other >= first
    codes = index.codes
    ones, others = prefix(codes[first], bits), prefix(codes[other], bits)
    pairs = np.sort(np.bitwise_count(ones ^ others).sum(axis=1, dtype=np.int64))
    if not with_limit:
        return Chance(pairs, float(bits))
    drawn = rng.permutation(number)[:_IMAGES]
    near = index.search(codes[drawn], 2, bits).distances
    # An image itself is at distance 0, and so it is its second neighbor that counts.
    usual = float(np.quantile(np.asarray(near)[:, 1], _USUAL, method="inverted_cdf"))
    return Chance(pairs, min(usual, _by_chance(pairs, 1 / number)))


def chance_of_query(index: PrefixIndex, query: NDArray[Any], bits: int | None = None, seed: int = 0) -> Chance:
    """What chance gives between a query that is no image, such as a sentence, and the images of a collection.

    Nearer than chance is what unrelated images would hardly ever be, in a collection of this size. Their distances are
    estimated as `chance_of_pairs` does, from the upper half of all distances to this very query: some sentences are
    nearer to everything than others.

    Args:
        index: as for `chance_of_pairs`.
        query: packed code, uint8 (1, bytes), or a real-valued one (1, L), whose distances are then those of
            `PrefixIndex.search` with `rescore`.
        bits: as for `chance_of_pairs`.
        seed: draws images.
    """
    number = len(index)
    if number < 3:
        return Chance(np.zeros(0), np.inf)
    drawn = np.random.default_rng(seed).permutation(number)[: 10 * _IMAGES]
    codes = index.codes[drawn]
    if query.dtype == np.uint8:
        found = hamming(query, codes, bits)[0].astype(float)
    else:
        found = (np.abs(query).sum() - unpack(codes, index.bits) @ query[0]) / 2
    found = np.sort(found)
    return Chance(found, _by_chance(found, _RARE / number))


def _by_chance(distances: NDArray[Any], share: float) -> float:
    """The distance that this share of unrelated things is below, estimated from the upper half of all distances."""
    middle, upper = np.quantile(distances, (0.5, _UPPER))
    spread = max(1.0, upper - middle)  # of codes that are all the same, none is nearer than others
    return float(middle + spread * NormalDist().inv_cdf(share))
