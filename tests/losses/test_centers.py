"""Hash centers whose every prefix separates the classes."""

import itertools

import numpy as np
import pytest
import torch

from nestkala.losses import dcc, majority_centers, nested_centers


def centers(num_classes, bits, seed=0):
    return nested_centers(num_classes, bits, torch.Generator().manual_seed(seed))


def smallest_distance(codes):
    words = [int("".join("01"[sign > 0] for sign in row), 2) for row in codes.tolist()]
    return min((a ^ b).bit_count() for a, b in itertools.combinations(words, 2))


def told_apart(codes):
    """How many bits differ (C, C), one pair after another in numpy."""
    return np.array([[(a != b).sum() for b in codes] for a in codes], dtype=float)


@pytest.mark.parametrize(
    ("num_classes", "bits"), [(1, 1), (1, 7), (2, 1), (2, 512), (3, 5), (10, 64), (33, 16), (201, 9)]
)
def test_entries_are_signs(num_classes, bits):
    codes = centers(num_classes, bits)
    assert codes.shape == (num_classes, bits)
    assert torch.equal(codes.abs(), torch.ones(num_classes, bits))


@pytest.mark.parametrize("num_classes", [2, 4, 8, 16])
def test_with_as_many_classes_as_codes_each_code_is_used_once(num_classes):
    bits = num_classes.bit_length() - 1
    for seed in range(3):
        codes = centers(num_classes, 8, seed)
        for shorter in range(1, bits + 1):
            counts = {}
            for row in codes[:, :shorter].tolist():
                counts[tuple(row)] = counts.get(tuple(row), 0) + 1
            assert set(counts.values()) == {num_classes // 2**shorter}


@pytest.mark.parametrize(("num_classes", "bits", "plotkin"), [(4, 12, 8), (8, 14, 8), (10, 64, 35), (20, 64, 33)])
def test_long_codes_come_near_the_largest_possible_distance(num_classes, bits, plotkin):
    """Plotkin's bound: the mean distance, and so the smallest, is at most bits * C / (2 (C - 1)), C even."""
    assert plotkin == bits * num_classes // (2 * (num_classes - 1))
    assert smallest_distance(centers(num_classes, bits)) >= plotkin - 2


@pytest.mark.parametrize(("num_classes", "random_best"), [(10, 200), (80, 20), (250, 10)])
def test_every_prefix_is_at_least_as_good_as_the_best_of_many_random_codes(num_classes, random_best):
    codes, generator = centers(num_classes, 32), torch.Generator().manual_seed(1)
    for bits in (4, 8, 16, 32):
        draws = [torch.randint(0, 2, (num_classes, bits), generator=generator) for _ in range(random_best)]
        assert smallest_distance(codes[:, :bits]) >= max(map(smallest_distance, draws))


@pytest.mark.parametrize("num_classes", [2, 7, 10, 81, 301])
def test_bits_are_balanced(num_classes):
    ones = (centers(num_classes, 32) > 0).float().mean(dim=0)
    assert (ones - 0.5).abs().max() <= max(0.1, 0.5 / num_classes) + 1e-6


@pytest.mark.parametrize("num_classes", [30, 210])
def test_no_class_that_changes_sides_in_a_bit_adds_to_the_weight_told_apart(num_classes):
    codes = centers(num_classes, 12).numpy()
    for bit in range(12):
        weights = np.exp(-told_apart(codes[:, :bit]))
        np.fill_diagonal(weights, 0)
        side = codes[:, bit]
        for one in range(num_classes):
            together, apart = weights[one, side == side[one]].sum(), weights[one, side != side[one]].sum()
            assert together <= apart + 1e-4 * weights.sum(axis=0).max()


def slow_centers(num_classes, bits, seed):
    """The same bit by bit, from the same number of starts, each class in its turn."""
    generator, columns = torch.Generator().manual_seed(seed), torch.zeros(num_classes, 0)
    for _ in range(bits):
        weights = torch.exp(-(columns[:, None] != columns).sum(dim=2).float()).fill_diagonal_(0)
        starts = torch.randint(0, 2, (32, num_classes), generator=generator).float() * 2 - 1
        cuts = dcc(starts, torch.zeros_like(starts), weights, sweeps=100)
        together = [float(cut @ weights @ cut) for cut in cuts]
        columns = torch.cat([columns, cuts[together.index(min(together))][:, None]], dim=1)
    return columns


def test_many_classes_are_as_far_apart_as_by_the_slow_search():
    fast, slow = ([search(260, 24, seed) for seed in range(3)] for search in (centers, slow_centers))
    for bits in (8, 12, 16, 20, 24):
        ours, theirs = (max(smallest_distance(codes[:, :bits]) for codes in found) for found in (fast, slow))
        assert ours >= theirs, bits


def test_a_thousand_classes_differ_at_every_prefix_long_enough():
    codes = centers(1000, 32)
    assert smallest_distance(codes[:, :14]) >= 1
    assert smallest_distance(codes) >= 8
    counts = torch.unique(codes[:, :8], dim=0, return_counts=True)[1]
    assert len(counts) == 256
    assert counts.max() <= 5  # 3.9 on average


@pytest.mark.parametrize(("num_classes", "bits", "each"), [(40, 2, 10), (240, 3, 30)])
def test_more_classes_than_codes_share_them_evenly(num_classes, bits, each):
    counts = torch.unique(centers(num_classes, 8)[:, :bits], dim=0, return_counts=True)[1]
    assert counts.tolist() == [each] * 2**bits


@pytest.mark.parametrize("num_classes", [10, 220])
def test_shorter_centers_are_prefixes_of_longer_ones(num_classes):
    assert torch.equal(centers(num_classes, 8), centers(num_classes, 24)[:, :8])


@pytest.mark.parametrize("num_classes", [10, 220])
def test_the_generator_decides(num_classes):
    torch.manual_seed(1)
    once = centers(num_classes, 16, seed=3)
    torch.manual_seed(2)
    assert torch.equal(once, centers(num_classes, 16, seed=3))
    assert not torch.equal(once, centers(num_classes, 16, seed=4))


def test_lengths_beyond_what_exp_can_hold_still_separate():
    codes = centers(6, 512)
    assert smallest_distance(codes[:, 256:]) >= 140


def test_majority_of_the_centers_of_an_items_labels():
    codes = torch.tensor([[1.0, 1, -1, -1], [-1, 1, 1, -1], [1, -1, 1, -1]])
    targets = torch.tensor([[0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    expected = [[-1, 1, 1, -1], [1, 0, 0, -1], [1, 1, 1, -1], [0, 0, 0, 0]]
    assert majority_centers(targets, codes).tolist() == expected
