"""What distances mean in a collection: how close its images are to one another, and to a query, by chance.

Every collection differs. Any two photographs of one wedding look alike; in an archive of fifty years, two that share a
quarter of their bits are a find. So distances are compared with those between random pairs of the collection's own
images, and between images and their nearest neighbors.
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
"""Share of images whose nearest neighbor is close enough to be called similar."""
_RARE = 0.001
"""Expected number of unrelated images in the whole collection that are as close to a sentence as the limit.
Both were chosen on half of Caltech-101's draws; docs/searching.md has the results on the others."""
_ROUNDING = 1e-3
"""Rounding error of float32 sums."""
_UPPER = NormalDist().cdf(1)
"""In a normal distribution, this quantile is one standard deviation above the median."""


@dataclass(frozen=True, eq=False)
class Chance:
    """How close unrelated items are.

    Attributes:
        distances: distances of random pairs, ascending, (n,).
        limit: largest distance that is closer than chance; negative if nothing can be.
    """

    distances: NDArray[np.floating[Any]]
    limit: float

    def similarity(self, distances: NDArray[Any]) -> NDArray[np.float64]:
        """The percentage of random pairs that are farther apart than each distance, 0 to 100.

        At 50, two images are as similar as any two; at 99.9, they are more similar than 999 of 1,000 random pairs.
        """
        nearer = np.searchsorted(self.distances, np.asarray(distances) + _ROUNDING, side="right")
        share: NDArray[np.float64] = 100 * (1 - nearer / max(1, len(self.distances)))
        return share

    def is_relevant(self, distances: NDArray[Any]) -> NDArray[np.bool_]:
        """Which distances are smaller than chance would explain."""
        return np.asarray(distances) <= self.limit + _ROUNDING


def chance_of_pairs(index: PrefixIndex, bits: int | None = None, with_limit: bool = True, seed: int = 0) -> Chance:
    """Distances by chance between two images of a collection, for queries that are images.

    A result is closer than chance if it is at least as close as 80 % of the images are to their nearest neighbor, and
    closer than unrelated images come. The distances of unrelated images are assumed to be normal and estimated from
    the upper half of the distances of random pairs, where similar pairs do not matter (an empirical null: Efron,
    "Large-Scale Simultaneous Hypothesis Testing", JASA 2004). A distance within which a query is expected to meet one
    or more unrelated images in the collection is chance.

    Args:
        index: index of the collection. With fewer than three images, everything is relevant.
        bits: prefix length to compare (default: the full code).
        with_limit: also find the limit, which takes 1,000 searches; otherwise everything is relevant.
        seed: seed for drawing pairs and images.
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
    # The nearest neighbor of an image is the image itself, so take the second.
    usual = float(np.quantile(np.asarray(near)[:, 1], _USUAL, method="inverted_cdf"))
    return Chance(pairs, min(usual, _by_chance(pairs, 1 / number)))


def chance_of_query(index: PrefixIndex, query: NDArray[Any], bits: int | None = None, seed: int = 0) -> Chance:
    """Distances by chance between the images of a collection and a query that is not an image, such as a sentence.

    A result is closer than chance if unrelated images in a collection of this size would hardly ever be as close.
    Their distances are estimated as in `chance_of_pairs`, but from the upper half of all distances to this query, since
    some sentences are closer to everything than others.

    Args:
        index: as for `chance_of_pairs`.
        query: packed code, uint8 (1, bytes), or a real-valued code (1, L), for which distances are those of
            `PrefixIndex.search` with `rescore`.
        bits: as for `chance_of_pairs`.
        seed: seed for drawing images.
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
    """The distance below which this share of unrelated items lies, estimated from the upper half of all distances."""
    middle, upper = np.quantile(distances, (0.5, _UPPER))
    spread = max(1.0, upper - middle)  # if all codes are equal, none is closer than the others
    return float(middle + spread * NormalDist().inv_cdf(share))
