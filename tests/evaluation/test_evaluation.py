"""Both mAPs against a double loop with a stable sort, enumerated orders, shuffles and exact fractions."""

from fractions import Fraction
from functools import partial
from itertools import groupby, permutations, product
from math import comb

import numpy as np
import pytest
import torch

from nestkala import evaluation
from nestkala.codes import pack
from nestkala.evaluation import cpu as evaluation_cpu
from nestkala.evaluation import evaluate
from nestkala.evaluation import gpu as evaluation_gpu
from nestkala.utils.errors import NestKALAError


def slow_ap(relevance, top_k):
    hits, precisions = 0, 0.0
    for place, relevant in enumerate(relevance[:top_k], start=1):
        if relevant:
            hits += 1
            precisions += hits / place
    return precisions / hits if hits else 0.0


def slow_rankings(q, q_labels, g, g_labels, bits):
    """One list of (distance, relevant) a query, sorted stably by distance; codes unpacked, in {-1, +1}."""
    rankings = []
    for code, labels in zip(q, q_labels, strict=True):
        items = []
        for other, other_labels in zip(g, g_labels, strict=True):
            distance = sum(int(a != b) for a, b in zip(code[:bits], other[:bits], strict=True))
            relevant = any(a and b for a, b in zip(labels, other_labels, strict=True))
            items.append((distance, relevant))
        rankings.append(sorted(items, key=lambda item: item[0]))
    return rankings


def slow_map(rankings, top_k):
    return float(np.mean([slow_ap([relevant for _, relevant in items], top_k) for items in rankings]))


def enumerated_map(rankings, top_k):
    """Mean over every order within every group of equal distance."""
    expected = []
    for items in rankings:
        groups = [[r for _, r in group] for _, group in groupby(items, key=lambda item: item[0])]
        orders = product(*(permutations(group) for group in groups))
        expected.append(np.mean([slow_ap(sum(order, ()), top_k) for order in orders]))
    return float(np.mean(expected))


def random_set(seed, num_queries, num_gallery, bits, classes, multi):
    rng = np.random.default_rng(seed)

    def draw(n):
        codes = rng.choice(np.array([-1, 1], np.int8), size=(n, bits))
        single = np.eye(classes, dtype=np.int64)[rng.integers(classes, size=n)]
        return codes, (rng.random((n, classes)) < 1.5 / classes) if multi else single

    return *draw(num_queries), *draw(num_gallery)


def score(q, q_labels, g, g_labels, lengths, top_k=None):
    return evaluate(pack(q), q_labels, pack(g), g_labels, lengths, top_k)


def scores(results):
    return {bits: metrics.scores for bits, metrics in results.items()}


@pytest.fixture(params=["whole", "in pieces", "in torch"])
def way(request, monkeypatch):
    """The gallery at once, in small pieces, or in pieces by the code for GPUs."""
    if request.param != "whole":
        monkeypatch.setattr(evaluation, "_CHUNK", 37)
        monkeypatch.setattr(evaluation, "_CELLS", 2 * 7 * 78)  # two queries at once
    if request.param == "in torch":
        monkeypatch.setattr(evaluation_gpu, "_BLOCK", 4)
        on_cpu = partial(evaluation_gpu.rank, device=torch.device("cpu"))
        monkeypatch.setattr(evaluation_cpu, "rank", on_cpu)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("top_k", [None, 1, 7, 40, 149, 10_000])
@pytest.mark.parametrize("multi", [False, True])
def test_map_is_the_double_loop_with_a_stable_sort(top_k, multi):
    data = random_set(3, 6, 150, 77, 5, multi)
    lengths = [13, 1, 3, 8, 64, 65, 77]
    results = score(*data, lengths, top_k)
    assert list(results) == lengths
    for bits in lengths:
        rankings = slow_rankings(*data, bits)
        assert results[bits].map == pytest.approx(slow_map(rankings, top_k), abs=1e-12)
        counts = np.zeros((6, bits + 1, 2), int)
        for q, items in enumerate(rankings):
            for distance, relevant in items:
                counts[q, distance, int(relevant)] += 1
        np.testing.assert_array_equal(results[bits].counts.counts, counts)


@pytest.mark.parametrize("classes", [64, 65, 300])
def test_labels_beyond_one_machine_word(classes):
    q, _, g, _ = random_set(4, 8, 40, 8, 2, False)
    rng = np.random.default_rng(5)
    # Half of the queries have their only label in the last class, a third of the gallery too.
    q_labels, g_labels = np.zeros((8, classes), bool), np.zeros((40, classes), bool)
    q_labels[::2, -1] = q_labels[1::2, 0] = True
    g_labels[np.arange(40), rng.choice([0, classes // 2, classes - 1], size=40)] = True
    rankings = slow_rankings(q, q_labels, g, g_labels, 8)
    assert score(q, q_labels, g, g_labels, [8])[8].map == pytest.approx(slow_map(rankings, None), abs=1e-12)


def test_query_without_relevant_items_counts_zero():
    q = np.ones((2, 4), np.int8)
    labels = np.eye(3, dtype=np.int64)
    # Query 0 finds its only relevant item first, query 1 has none.
    result = score(q, labels[[0, 2]], np.array([[1, 1, 1, 1], [-1, 1, 1, 1]]), labels[[0, 1]], [4])[4]
    assert result.scores == {"map": 0.5, "map_tie_aware": 0.5}


def test_ties_keep_the_order_of_the_gallery():
    labels = np.eye(2, dtype=np.int64)
    one, same = np.ones((1, 3), np.int8), np.ones((4, 3), np.int8)
    last = score(one, labels[[0]], same, labels[[1, 1, 1, 0]], [3])[3]
    first = score(one, labels[[0]], same, labels[[0, 1, 1, 1]], [3])[3]
    assert (first.map, last.map) == (1.0, 0.25)
    assert first.map_tie_aware == last.map_tie_aware == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_without_ties_both_agree():
    labels = np.eye(2, dtype=np.int64)
    staircase = 1 - 2 * np.tri(9, 8, -1, dtype=np.int64)  # row d at distance d from all ones
    gallery_labels = labels[[0, 1, 1, 0, 0, 1, 0, 1, 0]]
    for top_k in range(1, 10):
        result = score(np.ones((1, 8)), labels[[0]], staircase, gallery_labels, [8], top_k)[8]
        assert result.map_tie_aware == pytest.approx(result.map, abs=1e-12)


@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("multi", [False, True])
def test_tie_aware_is_the_mean_over_all_orders(top_k, multi):
    for seed in range(4):
        data = random_set(seed, 3, 7, 3, 2, multi)
        results = score(*data, [1, 2, 3], top_k)
        for bits in (2, 3):
            expected = enumerated_map(slow_rankings(*data, bits), top_k)
            assert results[bits].map_tie_aware == pytest.approx(expected, abs=1e-12)


def test_tie_aware_is_the_mean_over_shuffles_where_the_cut_splits_a_bucket():
    q, q_labels, g, g_labels = random_set(6, 1, 200, 4, 4, False)
    items, top_k = slow_rankings(q, q_labels, g, g_labels, 4)[0], 60
    assert items[top_k - 1][0] == items[top_k][0]
    rng = np.random.default_rng(7)
    samples = []
    for _ in range(4000):
        shuffled = sorted((items[i] for i in rng.permutation(200)), key=lambda item: item[0])
        samples.append(slow_ap([relevant for _, relevant in shuffled], top_k))
    standard_error = np.std(samples) / np.sqrt(len(samples))
    assert standard_error < 1e-3
    tie_aware = score(q, q_labels, g, g_labels, [4], top_k)[4].map_tie_aware
    assert abs(tie_aware - np.mean(samples)) < 4 * standard_error


@pytest.mark.parametrize("top_k", [1, 50, 450, 899, 900])
@pytest.mark.parametrize("num_relevant", [1, 30, 600, 900])
def test_tie_aware_of_one_large_bucket_is_the_exact_hypergeometric_sum(num_relevant, top_k):
    total, probability, expected = 900, [], []
    harmonic = sum(1 / p for p in range(1, top_k + 1))
    for hits in range(max(1, top_k + num_relevant - total), min(top_k, num_relevant) + 1):
        ways = comb(num_relevant, hits) * comb(total - num_relevant, top_k - hits)
        probability.append(float(Fraction(ways, comb(total, top_k))))
        slope = (hits - 1) / (top_k - 1) if top_k > 1 else 0
        expected.append((harmonic + slope * (top_k - harmonic)) / top_k)
    labels = np.eye(2, dtype=np.int64)[(np.arange(total) >= num_relevant).astype(int)]
    result = score(np.ones((1, 8)), labels[:1], np.ones((total, 8)), labels, [8], top_k)[8]
    assert result.map_tie_aware == pytest.approx(np.dot(probability, expected), rel=1e-11)


@pytest.mark.parametrize("top_k", [None, 30])
def test_only_the_protocol_depends_on_the_order_of_the_gallery(top_k):
    q, q_labels, g, g_labels = random_set(8, 5, 300, 10, 3, False)
    before = score(q, q_labels, g, g_labels, [2, 5, 10], top_k)
    order = np.random.default_rng(9).permutation(300)
    after = score(q, q_labels, g[order], g_labels[order], [2, 5, 10], top_k)
    for bits in before:
        assert after[bits].map_tie_aware == before[bits].map_tie_aware
        assert after[bits].map != before[bits].map


def test_layout_and_label_type_do_not_matter():
    q, q_labels, g, g_labels = random_set(10, 5, 50, 24, 9, True)
    expected = scores(score(q, q_labels, g, g_labels, [5, 24], 20))
    wide = np.zeros((50, 6), np.uint8)
    wide[:, ::2] = pack(g)
    for codes in (np.asfortranarray(pack(g)), wide[:, ::2]):
        floats = np.asfortranarray(g_labels.astype(np.float32))
        assert scores(evaluate(pack(q), q_labels.astype(np.int8), codes, floats, [5, 24], 20)) == expected


GOOD = {
    "q_codes": np.zeros((2, 2), np.uint8),
    "q_labels": np.ones((2, 3), np.int64),
    "g_codes": np.zeros((4, 2), np.uint8),
    "g_labels": np.ones((4, 3), np.int64),
    "lengths": [8, 16],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_codes": np.zeros((2, 2))}, "query codes: got float64"),
        ({"g_codes": np.zeros(4, np.uint8)}, r"gallery codes: got shape \(4,\)"),
        ({"g_codes": np.zeros((4, 3), np.uint8)}, "queries have 2 bytes and the gallery 3"),
        ({"g_labels": np.ones((4, 5), int)}, "queries have 3 classes and the gallery 5"),
        ({"q_labels": np.ones((3, 3), int)}, "query: got 2 codes and 3 labels"),
        ({"g_labels": np.ones((3, 3), int)}, "gallery: got 4 codes and 3 labels"),
        ({"q_labels": np.array([0, 1])}, r"query labels: got shape \(2,\)"),
        ({"q_labels": [[1, 0, 0]] * 2}, "query labels: got list"),
        ({"q_labels": np.array([[0, 1, 2]] * 2)}, "query labels: got 2, need only 0 and 1"),
        ({"g_labels": np.full((4, 3), np.nan)}, "gallery labels: got nan"),
        ({"q_codes": np.zeros((0, 2), np.uint8), "q_labels": np.ones((0, 3))}, "query: got 0 codes"),
        ({"g_codes": np.zeros((0, 2), np.uint8), "g_labels": np.ones((0, 3))}, "gallery: got 0 codes"),
        ({"lengths": []}, "lengths: got none"),
        ({"lengths": [8, 17]}, "lengths: got 17, need integers from 1 to 16"),
        ({"lengths": [0]}, "lengths: got 0"),
        ({"lengths": [7.5]}, r"lengths: got 7\.5"),
        ({"top_k": 0}, "top_k: got 0"),
    ],
)
def test_bad_input_is_refused(changes, message):
    evaluate(**GOOD)
    with pytest.raises(NestKALAError, match=message):
        evaluate(**(GOOD | changes))
