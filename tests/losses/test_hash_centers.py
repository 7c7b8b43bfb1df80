"""Hash centers of one length: how far apart the closest two are, counted one bit at a time."""

import itertools
import math

import pytest
import torch

from nestkala.losses.hash_centers import gilbert_varshamov, hash_centers, minimum_distance


def centers(num_classes, bits, seed=0):
    return hash_centers(num_classes, bits, torch.Generator().manual_seed(seed))


def smallest_distance(codes):
    words = [int("".join("01"[sign > 0] for sign in row), 2) for row in codes.tolist()]
    return min((a ^ b).bit_count() for a, b in itertools.combinations(words, 2))


def slow_bound(num_classes, bits):
    """The largest distance at which the words that all classes rule out together cannot exceed the words there are."""
    ruled_out = itertools.accumulate((math.comb(bits, i) for i in range(bits)), initial=0)  # by d = 0, ..., bits
    met = [d for d, words in enumerate(ruled_out) if num_classes * words <= 2**bits]  # 0 always is
    return max(met)


@pytest.mark.parametrize(
    ("num_classes", "bits"),
    [(1, 1), (1, 2), (1, 7), (1, 64), (1, 19), (2, 1), (3, 2), (2, 17), (2, 512), (5, 3), (33, 16), (16, 8), (9, 3)],
)
def test_entries_are_signs(num_classes, bits):
    codes = centers(num_classes, bits)
    assert codes.shape == (num_classes, bits)
    assert codes.dtype == torch.float32
    assert torch.equal(codes.abs(), torch.ones(num_classes, bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32, 64])
def test_hadamard_rows_and_their_negatives_reach_half_the_bits(bits):
    for num_classes in sorted({2, 3, 5, bits - 1, bits, bits + 1, 2 * bits - 1, 2 * bits}):
        if 2 <= num_classes <= 2 * bits:
            for seed in range(3):
                assert smallest_distance(centers(num_classes, bits, seed)) >= bits / 2


def test_hadamard_rows_are_orthogonal_or_opposite():
    codes = centers(64, 32)
    products = codes @ codes.T
    assert products.diagonal().tolist() == [32.0] * 64
    assert set(products.unique().tolist()) == {-32.0, 0.0, 32.0}
    assert (products == -32).sum(dim=1).tolist() == [1] * 64


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15])
@pytest.mark.parametrize("num_classes", [2, 3, 4, 7, 10, 17, 40, 80])
def test_the_closest_two_are_as_far_apart_as_gilbert_and_varshamov_say(num_classes, bits):
    assert smallest_distance(centers(num_classes, bits, seed=bits)) >= slow_bound(num_classes, bits)


@pytest.mark.parametrize(
    ("num_classes", "bits"),
    [(80, 16), (21, 17), (80, 17), (21, 24), (80, 32), (200, 64), (80, 48), (150, 100), (1000, 64)],
)
def test_the_bound_is_met_where_only_some_of_the_words_are_seen(num_classes, bits):
    assert smallest_distance(centers(num_classes, bits)) >= slow_bound(num_classes, bits)


@pytest.mark.parametrize(("num_classes", "bits"), [(120, 19), (120, 20)])
def test_more_words_are_drawn_until_the_bound_is_met(monkeypatch, num_classes, bits):
    monkeypatch.setitem(hash_centers.__globals__, "_POOL", 1)  # no more words at a time than centers wanted
    assert smallest_distance(centers(num_classes, bits)) >= slow_bound(num_classes, bits) >= 4


@pytest.mark.parametrize(
    ("num_classes", "bits", "distance"),
    [
        (2, 12, 12),  # opposite
        (4, 3, 2),  # the words of even weight, and so on
        (64, 7, 2),
        (128, 8, 2),
        (16, 7, 3),  # Hamming's code
        (10, 12, 6),  # the most there can be
        (80, 12, 4),
        (80, 16, 6),
        (256, 12, 3),
    ],
)
def test_known_good_codes_are_found(num_classes, bits, distance):
    assert smallest_distance(centers(num_classes, bits)) >= distance


@pytest.mark.parametrize(("num_classes", "bits"), [(2, 1), (4, 2), (8, 3), (16, 4), (1024, 10)])
def test_with_as_many_classes_as_words_each_word_is_used_once(num_classes, bits):
    assert len(torch.unique(centers(num_classes, bits), dim=0)) == num_classes


@pytest.mark.parametrize(("num_classes", "bits"), [(3, 1), (5, 2), (9, 3), (80, 4), (100, 6), (96, 5)])
def test_more_classes_than_words_share_them_evenly(num_classes, bits):
    counts = torch.unique(centers(num_classes, bits), dim=0, return_counts=True)[1]
    assert len(counts) == 2**bits
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == num_classes


@pytest.mark.parametrize(
    ("num_classes", "bits"), [(2, 8), (2, 9), (3, 16), (5, 64), (10, 64), (10, 12), (20, 9), (16, 9), (3, 17), (80, 8)]
)
def test_no_bit_is_the_same_for_all_classes(num_classes, bits):
    for seed in range(5):
        ones = (centers(num_classes, bits, seed) > 0).sum(dim=0)
        assert ones.min() > 0
        assert ones.max() < num_classes


@pytest.mark.parametrize(("num_classes", "bits"), [(65, 64), (40, 32), (64, 64), (80, 24), (80, 12)])
def test_many_classes_are_divided_by_every_bit(num_classes, bits):
    for seed in range(3):
        ones = (centers(num_classes, bits, seed) > 0).double().mean(dim=0)
        assert (ones - 0.5).abs().max() < 0.35


@pytest.mark.parametrize(("num_classes", "bits"), [(10, 16), (10, 12), (80, 8), (40, 24), (40, 3), (1, 5)])
def test_the_generator_decides_and_nothing_else(num_classes, bits):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    once = centers(num_classes, bits, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(once, centers(num_classes, bits, seed=3))
    assert any(not torch.equal(once, centers(num_classes, bits, seed)) for seed in (4, 5, 6))


@pytest.mark.parametrize("seed", range(4))
def test_minimum_distance_is_the_brute_force_one(seed):
    codes = torch.randint(0, 2, (12, 21), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
    assert minimum_distance(codes) == smallest_distance(codes)
    assert minimum_distance(codes.double()) == smallest_distance(codes)


def test_minimum_distance_of_equal_opposite_and_single_centers():
    one = torch.tensor([[1.0, -1.0, 1.0]])
    assert minimum_distance(torch.cat([one, one])) == 0
    assert minimum_distance(torch.cat([one, -one])) == 3
    assert minimum_distance(one) == 3
    assert one.tolist() == [[1.0, -1.0, 1.0]]


@pytest.mark.parametrize("bits", [*range(1, 20), 64, 512])
def test_gilbert_varshamov_is_the_largest_distance_of_the_inequality(bits):
    for num_classes in (1, 2, 3, 10, 80, 1000, 2**bits, 2**bits + 1):
        assert gilbert_varshamov(num_classes, bits) == slow_bound(num_classes, bits)


def test_gilbert_varshamov_of_cases_counted_by_hand():
    assert gilbert_varshamov(2, 3) == 2  # 2 * (1 + 3) <= 8
    assert gilbert_varshamov(16, 7) == 2  # 16 * (1 + 7) <= 128, where Hamming's code has 3
    assert gilbert_varshamov(8, 3) == 1
    assert gilbert_varshamov(9, 3) == 0
    assert gilbert_varshamov(1, 4) == 4
