"""How many relevant items are at each Hamming distance, and the metrics that follow from that alone."""

from dataclasses import dataclass
from itertools import accumulate
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from ..utils.errors import NestKALAError
from ..utils.limits import is_whole_number

Values = NDArray[np.float64]

_BLOCK = 256  # queries whose last buckets are processed together, to bound memory


@dataclass(frozen=True, eq=False)
class RelevanceCounts:
    """Gallery items of each query by distance and relevance, at one code length b.

    Metrics of a ranking are exact expectations over random order among items at equal distance.

    Attributes:
        counts: int (Q, b + 1, 2), Q >= 1: the number of items at each distance, not relevant and relevant.

    Raises:
        NestKALAError: if counts have another shape or type, or there are no queries or no gallery.
    """

    counts: NDArray[np.signedinteger]

    def __post_init__(self) -> None:
        dtype, shape = self.counts.dtype, self.counts.shape
        if dtype.kind not in "iu" or len(shape) != 3 or shape[2] != 2:
            raise NestKALAError(f"counts must be whole numbers (queries, distances, 2), not {dtype} {shape}")
        if not self.counts[:1].any():
            raise NestKALAError(f"counts {shape} have no queries, or no gallery")

    def average_precision(self, top_k: int | None = None) -> Values:
        """Expected average precision over the first `top_k` ranks, (Q,), as in `evaluate`; None, or more, means all.

        Raises:
            NestKALAError: if `top_k` is below 1.
        """
        if top_k is not None and not is_whole_number(top_k, 1):
            raise NestKALAError(f"top_k must be a whole number of 1 or more, or None for all, not {top_k}")
        top_k = self._num_gallery if top_k is None else min(top_k, self._num_gallery)
        blocks = range(0, len(self.counts), _BLOCK)
        return np.concatenate([_average_precision(self.counts[first : first + _BLOCK], top_k) for first in blocks])

    def precision_at(self, n: int) -> Values:
        """Expected share of relevant items in the first n ranks, (Q,), each in [0, 1]; n is capped at the gallery size.

        Raises:
            NestKALAError: if n is below 1.
        """
        return self._hits_at(n) / min(n, self._num_gallery)

    def recall_at(self, n: int) -> Values:
        """Expected share of the relevant items that are in the first n ranks, (Q,); 0 for a query with none.

        Raises:
            NestKALAError: if n is below 1.
        """
        return self._hits_at(n) / np.maximum(self.counts[:, :, 1].sum(axis=1), 1)

    def precision_within(self, radius: int) -> Values:
        """Share of relevant items among those at this distance or less, (Q,); 0 if there are none.

        Raises:
            NestKALAError: if the radius is negative.
        """
        return self._within(radius)[0]

    def recall_within(self, radius: int) -> Values:
        """Share of the relevant items that are at this distance or less, (Q,); 0 for a query with none.

        Raises:
            NestKALAError: if the radius is negative.
        """
        return self._within(radius)[1]

    def radius_aware_average_precision(self, max_radius: int | None = None) -> Values:
        """Average precision of bucket search, which looks up one bucket after another, (Q,), each in [0, 1].

        P(r) is the precision within radius r (0 if nothing is found). Its cost is the number of b-bit buckets that are
        looked up, C(b, 0) + ... + C(b, r):

            RAAP = 1 / (R + 1) * sum over r = 0..R of P(r) / (C(b, 0) + ... + C(b, r))

        Its mean over the queries is RAMAP. The maximum is about 1 / (R + 1), because only radius 0 costs one bucket.

        Source: Jiang, Li and Li, "On the Evaluation Metric for Hashing" (arXiv 1905.10951), RAMAP@R with its cost.

        Args:
            max_radius: R, 0 or more; None, or more than b, means b.

        Raises:
            NestKALAError: if the radius is negative.
        """
        bits = self.counts.shape[1] - 1
        if max_radius is not None and not is_whole_number(max_radius, 0):
            raise NestKALAError(f"max_radius must be a whole number of 0 or more, or None for all, not {max_radius}")
        radii = range(1 + (bits if max_radius is None else min(max_radius, bits)))
        buckets = accumulate(
            comb(bits, radius) for radius in radii
        )  # from 1,030 bits on they exceed the range of a float
        terms = [self.precision_within(radius) * (1 / cost) for radius, cost in zip(radii, buckets, strict=True)]
        mean: Values = np.mean(terms, axis=0)
        return mean

    def precision_recall_curve(self) -> tuple[Values, Values]:
        """Precision and recall within every radius 0..b, averaged over the queries: (b + 1,) each."""
        found = [self._within(radius) for radius in range(self.counts.shape[1])]
        return np.array([p.mean() for p, _ in found]), np.array([r.mean() for _, r in found])

    @property
    def _num_gallery(self) -> int:
        return int(self.counts[0].sum())

    def _within(self, radius: int) -> tuple[Values, Values]:
        if not is_whole_number(radius, 0):
            raise NestKALAError(f"radius must be a whole number of 0 or more, not {radius}")
        found = self.counts[:, : radius + 1].sum(axis=1)  # (Q, 2)
        relevant = np.maximum(self.counts[:, :, 1].sum(axis=1), 1)
        return found[:, 1] / np.maximum(found.sum(axis=1), 1), found[:, 1] / relevant

    def _hits_at(self, n: int) -> Values:
        """Expected number of relevant items in the first n ranks, (Q,)."""
        if not is_whole_number(n, 1):
            raise NestKALAError(f"n must be a whole number of 1 or more, not {n}")
        total = self.counts.sum(axis=2, dtype=np.int64)  # (Q, b + 1)
        before = total.cumsum(axis=1) - total
        places = np.clip(n - before, 0, total)  # ranks of each distance among the first n
        hits: Values = (self.counts[:, :, 1] * places / np.maximum(total, 1)).sum(axis=1)
        return hits


def bootstrap_interval(
    values: Values, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a metric over queries (Efron, "Bootstrap methods", 1979).

    Args:
        values: the metric, one per query, (Q,).
        level: coverage of the interval, in (0, 1).
        resamples: number of draws of Q queries with replacement.
        seed: seed for the draws.

    Returns:
        The lower and upper end.

    Raises:
        NestKALAError: if there are no values, values are not finite, or level or resamples is out of range.
    """
    if not len(values):
        raise NestKALAError("there are no values to compute an interval for")
    if not np.isfinite(values).all():
        raise NestKALAError(f"values must be finite, but contain {values[~np.isfinite(values)][0]}")
    if not is_whole_number(resamples, 1):
        raise NestKALAError(f"resamples must be a whole number of 1 or more, not {resamples}")
    if not 0 < level < 1:
        raise NestKALAError(f"level must be between 0 and 1, not {level}")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _average_precision(counts: NDArray[np.signedinteger], top_k: int) -> Values:
    """Expected AP of some queries, (Q,), from counts (Q, b + 1, 2), with `top_k` at most the gallery size."""
    counts = counts.astype(np.int64)
    relevant = counts[:, :, 1]  # (Q, b + 1)
    total = counts.sum(axis=2)
    places_before = total.cumsum(axis=1) - total
    hits_before = relevant.cumsum(axis=1) - relevant
    last = (places_before + total >= top_k).argmax(axis=1)[:, None]  # the bucket of rank top_k, (Q, 1)
    whole = np.arange(total.shape[1]) < last
    precisions = _expected_precisions(total, relevant, places_before, hits_before)
    precisions_before = np.where(whole, precisions, 0.0).sum(axis=1, keepdims=True)  # (Q, 1)

    total, relevant, places_before, hits_before = (
        np.take_along_axis(x, last, axis=1) for x in (total, relevant, places_before, hits_before)
    )  # (Q, 1)
    places = top_k - places_before
    hits, probability = _hypergeometric(total, relevant, places)  # (Q, W)
    precisions = precisions_before + _expected_precisions(places, hits, places_before, hits_before)
    average: Values = (probability * precisions / np.maximum(hits_before + hits, 1)).sum(axis=1)
    return average


def _expected_precisions(
    places: NDArray[np.int64],
    hits: NDArray[np.int64],
    places_before: NDArray[np.int64],
    hits_before: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Expected sum of the precisions at the hits, for `hits` spread at random over consecutive `places`.

    Place p = 1..places holds a hit with probability hits / places; on average hits_before + 1 + (p - 1) slope hits
    are then among the first places_before + p. The sum over p of 1 / (places_before + p) is a difference of harmonic
    numbers.
    """
    harmonic = digamma(places_before + places + 1.0) - digamma(places_before + 1.0)
    slope = (hits - 1) / np.maximum(places - 1, 1)
    density = hits / np.maximum(places, 1)
    return density * ((hits_before + 1) * harmonic + slope * (places - (places_before + 1) * harmonic))


def _hypergeometric(
    total: NDArray[np.int64], relevant: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers of hits (Q, W) and their probabilities (Q, W), for `places` drawn from `total`, inputs (Q, 1).

    W covers 4.5 sqrt(places) on either side of the mean; by Hoeffding's bound 5e-18 lies outside.
    `scipy.stats.hypergeom` is as exact but takes microseconds per value.
    """
    mean, reach = places * relevant / total, 4.5 * np.sqrt(places)
    lowest = np.maximum(np.floor(mean - reach).astype(np.int64), np.maximum(0, places + relevant - total))
    highest = np.minimum(np.ceil(mean + reach).astype(np.int64), np.minimum(places, relevant))
    hits = lowest + np.arange((highest - lowest).max() + 1)
    # Ratios of neighboring probabilities, as logarithms to avoid overflow; 0 beyond the possible hits.
    more = np.maximum(relevant - hits[:, :-1], 0) * np.maximum(places - hits[:, :-1], 0)
    fewer = hits[:, 1:] * (total - relevant - places + hits[:, 1:])
    with np.errstate(divide="ignore"):
        log_ratio = np.log(more) - np.log(fewer)
    log_probability = np.pad(log_ratio.cumsum(axis=1), ((0, 0), (1, 0)))
    probability = np.exp(log_probability - log_probability.max(axis=1, keepdims=True))
    return hits, probability / probability.sum(axis=1, keepdims=True)
