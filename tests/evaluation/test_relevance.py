"""Metrics from counts, against every order of ties written out, and loops over the items."""

from itertools import permutations

import numpy as np
import pytest

from nestkala.codes import pack
from nestkala.evaluation import evaluate
from nestkala.evaluation.relevance import RelevanceCounts, bootstrap_interval
from nestkala.utils.errors import NestKALAError


def drawn(num: int, bits: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.choice([-1, 1], (num, bits)), rng.random((num, classes)) < 0.4


def counted(bits: int, num_gallery: int, seed: int) -> tuple[RelevanceCounts, np.ndarray, np.ndarray]:
    """The counts of four queries, and distances and relevance of each item, (4, G)."""
    (q, q_labels), (g, g_labels) = drawn(4, bits, 3, seed), drawn(num_gallery, bits, 3, seed + 1)
    metrics = evaluate(pack(q), q_labels, pack(g), g_labels, (bits,))[bits]
    distances = np.array([[int((a != b).sum()) for b in g] for a in q])
    relevant = np.array([[bool((a & b).any()) for b in g_labels] for a in q_labels])
    return metrics.counts, distances, relevant


def orders(distances: np.ndarray) -> list[tuple[int, ...]]:
    """Every order of a few items that sorts them by distance."""
    places = range(len(distances))
    return [order for order in permutations(places) if all(np.diff(distances[list(order)]) >= 0)]


@pytest.mark.parametrize("seed", range(4))
def test_precision_and_recall_at_n_are_means_over_every_order_of_ties(seed: int) -> None:
    counts, distances, relevant = counted(2, 6, seed)
    for n in (1, 2, 3, 5, 6, 9):
        for q in range(4):
            hits = np.mean([relevant[q][list(order)][:n].sum() for order in orders(distances[q])])
            assert counts.precision_at(n)[q] == pytest.approx(hits / min(n, 6))
            assert counts.recall_at(n)[q] == pytest.approx(hits / relevant[q].sum() if relevant[q].any() else 0)


@pytest.mark.parametrize("bits", [3, 20])
def test_what_lies_within_a_radius(bits: int) -> None:
    counts, distances, relevant = counted(bits, 60, 0)
    precisions, recalls = counts.precision_recall_curve()
    assert len(precisions) == len(recalls) == bits + 1
    for radius in range(bits + 1):
        precision, recall = [], []
        for q in range(4):
            found = [bool(r) for d, r in zip(distances[q], relevant[q], strict=True) if d <= radius]
            precision.append(sum(found) / len(found) if found else 0)
            recall.append(sum(found) / relevant[q].sum() if relevant[q].any() else 0)
        assert counts.precision_within(radius) == pytest.approx(precision)
        assert counts.recall_within(radius) == pytest.approx(recall)
        assert precisions[radius] == pytest.approx(np.mean(precision))
        assert recalls[radius] == pytest.approx(np.mean(recall))
    np.testing.assert_array_equal(counts.precision_within(bits + 5), counts.precision_within(bits))


def test_a_query_with_nothing_relevant_has_0() -> None:
    counts = RelevanceCounts(np.array([[[3, 0], [0, 0], [2, 0]], [[0, 0], [4, 1], [0, 0]]]))
    assert counts.precision_at(4)[0] == counts.recall_at(4)[0] == counts.recall_within(1)[0] == 0
    assert counts.precision_within(0).tolist() == [0, 0]
    assert counts.precision_at(2)[1] == pytest.approx(1 / 5)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.2, 900)
    low, high = bootstrap_interval(values, 0.95)
    error = values.std() / 30  # of the mean
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap_interval(values, 0.95) == (low, high)
    narrow = bootstrap_interval(values, 0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval(np.full(7, 0.25)) == (0.25, 0.25)


def test_numbers_out_of_range_are_told() -> None:
    counts, _, _ = counted(3, 5, 0)
    for ask, said in (
        (lambda: counts.precision_at(0), "n must be a whole number of 1 or more, not 0"),
        (lambda: counts.average_precision(0), "top_k must be a whole number of 1 or more, or None for all, not 0"),
        (lambda: counts.recall_at(-1), "n must be a whole number of 1 or more, not -1"),
        (lambda: counts.precision_within(-1), "radius must be a whole number of 0 or more, not -1"),
        (
            lambda: counts.radius_aware_average_precision(-1),
            "max_radius must be a whole number of 0 or more, or None for all, not -1",
        ),
        (lambda: bootstrap_interval(np.empty(0)), "no values"),
        (lambda: bootstrap_interval(np.ones(3), 1.0), "level must be between 0 and 1, not 1.0"),
    ):
        with pytest.raises(NestKALAError, match=said):
            ask()


@pytest.mark.parametrize("max_radius", [None, 0, 2, 9])
def test_radius_aware_precision_pays_for_every_bucket_looked_up(max_radius: int | None) -> None:
    counts, distances, relevant = counted(4, 40, 5)
    buckets = [sum(code.bit_count() <= radius for code in range(16)) for radius in range(5)]
    expected = []
    for q in range(4):
        terms = []
        for radius in range(5 if max_radius is None else min(max_radius, 4) + 1):
            found = relevant[q][distances[q] <= radius]
            terms.append((found.mean() if len(found) else 0) / buckets[radius])
        expected.append(np.mean(terms))
    assert counts.radius_aware_average_precision(max_radius) == pytest.approx(expected)
