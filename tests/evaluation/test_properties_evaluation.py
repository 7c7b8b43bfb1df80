"""Metrics over any shape, labels and cut of the ranking, against sorting in a loop and every order of ties."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nestkala import evaluation
from nestkala.codes import pack
from nestkala.evaluation import cpu as evaluation_cpu
from nestkala.evaluation import evaluate
from nestkala.evaluation import gpu as evaluation_gpu
from nestkala.evaluation.relevance import RelevanceCounts
from nestkala.utils.errors import NestKALAError
from tests.evaluation.test_evaluation import enumerated_map, slow_map, slow_rankings

rank_on_cpu = evaluation_cpu.rank


@st.composite
def collections(draw: st.DrawFn, num: int, bits: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes -1 and +1 (num, bits), few different ones, and labels (num, classes): none, all, one each or any."""
    pool = draw(hnp.arrays(np.int8, (draw(st.integers(1, 4)), bits), elements=st.sampled_from([-1, 1])))
    codes = pool[draw(st.lists(st.integers(0, len(pool) - 1), min_size=num, max_size=num))]
    match draw(st.sampled_from(["any", "one each", "none", "all"])):
        case "none":
            return codes, np.zeros((num, classes), bool)
        case "all":
            return codes, np.ones((num, classes), bool)
        case "one each":
            return codes, np.eye(classes, dtype=bool)[draw(hnp.arrays(int, num, elements=st.integers(0, classes - 1)))]
    return codes, draw(hnp.arrays(bool, (num, classes)))


@st.composite
def searches(
    draw: st.DrawFn, most_items: int, most_bits: int = 80
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], list[int], int | None]:
    """Queries and gallery, lengths unsorted and repeated, and how many places count, more than there are too."""
    bits, classes = draw(st.integers(1, most_bits)), draw(st.integers(1, 70))
    queries, items = draw(st.integers(1, 3)), draw(st.integers(1, most_items))
    data = *draw(collections(queries, bits, classes)), *draw(collections(items, bits, classes))
    lengths = draw(st.lists(st.integers(1, bits), min_size=1, max_size=4))
    return data, lengths, draw(st.one_of(st.none(), st.integers(1, 2 * items)))


def check(data: tuple[np.ndarray, ...], lengths: list[int], top_k: int | None, small: bool, **options: object) -> None:
    q, q_labels, g, g_labels = data
    found = evaluate(pack(q), q_labels, pack(g), g_labels, lengths, top_k, **options)  # type: ignore[arg-type]
    assert list(found) == list(dict.fromkeys(lengths))
    for bits, metrics in found.items():
        rankings = slow_rankings(*data, bits)
        assert metrics.map == pytest.approx(slow_map(rankings, top_k), abs=1e-12)
        if small:
            assert metrics.map_tie_aware == pytest.approx(enumerated_map(rankings, top_k), abs=1e-12)
        counts = np.zeros((len(q), bits + 1, 2), int)
        for row, items in enumerate(rankings):
            for distance, relevant in items:
                counts[row, distance, int(relevant)] += 1
        np.testing.assert_array_equal(metrics.counts.counts, counts)


@pytest.mark.parametrize("rank", [rank_on_cpu, partial(evaluation_gpu.rank, device=torch.device("cpu"))])
@given(search=searches(40), chunk=st.integers(1, 50), cells=st.integers(1, 900))
def test_counts_and_map_are_those_of_a_stable_sort(rank: object, search: tuple, chunk: int, cells: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_CHUNK", chunk)
        patch.setattr(evaluation, "_CELLS", cells)
        patch.setattr(evaluation_cpu, "rank", rank)
        check(*search, small=False)


@given(searches(5, most_bits=9))
def test_the_tie_aware_map_is_the_mean_over_every_order_of_ties(search: tuple) -> None:
    check(*search, small=True)


counts_of = st.builds(
    lambda counts, kind: counts.astype(kind),
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8).flatmap(
        lambda shape: hnp.arrays(np.int64, (shape[0], shape[1] + 1, 2), elements=st.integers(0, 60))
    ),
    st.sampled_from([np.int32, np.int64, np.uint16]),
)


@given(counts_of, st.integers(1, 10**6))
def test_every_metric_of_any_counts_is_between_0_and_1_or_the_counts_are_refused(counts: np.ndarray, n: int) -> None:
    counts = np.concatenate([counts, counts[:, ::-1]])  # equally many items for every two queries
    counts = counts[[0, len(counts) // 2]]
    if not counts.any():
        with pytest.raises(NestKALAError, match="have no queries, or no gallery"):
            RelevanceCounts(counts)
        return
    made = RelevanceCounts(counts)
    ways = made.average_precision, made.precision_at, made.recall_at, made.precision_within, made.recall_within
    for metric in (*ways, made.radius_aware_average_precision):
        values = metric(n)
        assert values.shape == (2,)
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@pytest.mark.parametrize(
    "counts", [np.zeros((0, 3, 2), int), np.zeros((2, 3, 2), int), np.ones((2, 3, 2)), np.ones((2, 3), int)]
)
def test_counts_of_nothing_are_refused(counts: np.ndarray) -> None:
    with pytest.raises(NestKALAError, match=r"counts .*\("):
        RelevanceCounts(counts)


anything = st.one_of(st.integers(-3, 40), st.floats(), st.booleans(), st.none())


@given(anything, anything)
def test_a_length_or_a_cut_that_is_no_whole_number_is_refused(length: object, top_k: object) -> None:
    codes, labels = np.zeros((2, 2), np.uint8), np.ones((2, 1), bool)
    fine = type(length) is int and 1 <= length <= 16
    if fine and (top_k is None or (type(top_k) is int and top_k >= 1)):
        assert evaluate(codes, labels, codes, labels, [length], top_k)[length].map == 1  # type: ignore[list-item, arg-type]
        return
    with pytest.raises(NestKALAError, match=r"^top_k: got" if fine else r"^lengths: got"):
        evaluate(codes, labels, codes, labels, [length], top_k)  # type: ignore[list-item, arg-type]


def test_codes_of_more_bits_than_a_float_counts_buckets_of() -> None:
    counts = np.zeros((1, 1101, 2), int)
    counts[0, 0, 1] = 1
    # the first radius costs one bucket, the second 1 + 1,100, the third that and 1,100 * 1,099 / 2
    expected = (1 + 1 / 1101 + 1 / (1101 + 550 * 1099)) / 3
    assert RelevanceCounts(counts).radius_aware_average_precision(2)[0] == pytest.approx(expected)
    assert RelevanceCounts(counts).radius_aware_average_precision()[0] == pytest.approx(expected * 3 / 1101, rel=1e-6)
