"""Hash centres whose every prefix separates the classes."""

import itertools

import pytest
import torch

from nestkala.losses import majority_centres, nested_centres


def centres(num_classes, bits, seed=0):
    return nested_centres(num_classes, bits, torch.Generator().manual_seed(seed))


def smallest_distance(codes):
    return min(sum(a != b for a, b in zip(x, y, strict=True)) for x, y in itertools.combinations(codes.tolist(), 2))


@pytest.mark.parametrize(("num_classes", "bits"), [(1, 1), (1, 7), (2, 1), (2, 512), (3, 5), (10, 64), (33, 16)])
def test_entries_are_signs(num_classes, bits):
    codes = centres(num_classes, bits)
    assert codes.shape == (num_classes, bits)
    assert torch.equal(codes.abs(), torch.ones(num_classes, bits))


@pytest.mark.parametrize("num_classes", [2, 4, 8, 16])
def test_with_as_many_classes_as_codes_each_code_is_used_once(num_classes):
    bits = num_classes.bit_length() - 1
    for seed in range(3):
        codes = centres(num_classes, 8, seed)
        for shorter in range(1, bits + 1):
            counts = {}
            for row in codes[:, :shorter].tolist():
                counts[tuple(row)] = counts.get(tuple(row), 0) + 1
            assert set(counts.values()) == {num_classes // 2**shorter}


@pytest.mark.parametrize(("num_classes", "bits", "plotkin"), [(4, 12, 8), (8, 14, 8), (10, 64, 35), (20, 64, 33)])
def test_long_codes_come_near_the_largest_possible_distance(num_classes, bits, plotkin):
    """Plotkin's bound: the mean distance, and so the smallest, is at most bits * C / (2 (C - 1)), C even."""
    assert plotkin == bits * num_classes // (2 * (num_classes - 1))
    assert smallest_distance(centres(num_classes, bits)) >= plotkin - 2


@pytest.mark.parametrize(("num_classes", "random_best"), [(10, 200), (80, 20)])
def test_every_prefix_is_at_least_as_good_as_the_best_of_many_random_codes(num_classes, random_best):
    codes, generator = centres(num_classes, 32), torch.Generator().manual_seed(1)
    for bits in (4, 8, 16, 32):
        draws = [torch.randint(0, 2, (num_classes, bits), generator=generator) for _ in range(random_best)]
        assert smallest_distance(codes[:, :bits]) >= max(map(smallest_distance, draws))


@pytest.mark.parametrize("num_classes", [2, 7, 10, 81])
def test_bits_are_balanced(num_classes):
    ones = (centres(num_classes, 32) > 0).float().mean(dim=0)
    assert (ones - 0.5).abs().max() <= max(0.1, 0.5 / num_classes) + 1e-6


def test_more_classes_than_codes_share_them_evenly():
    counts = torch.unique(centres(40, 8)[:, :2], dim=0, return_counts=True)[1]
    assert counts.tolist() == [10, 10, 10, 10]


def test_shorter_centres_are_prefixes_of_longer_ones():
    assert torch.equal(centres(10, 8), centres(10, 64)[:, :8])


def test_the_generator_decides():
    assert torch.equal(centres(10, 16, seed=3), centres(10, 16, seed=3))
    assert not torch.equal(centres(10, 16, seed=3), centres(10, 16, seed=4))


def test_lengths_beyond_what_exp_can_hold_still_separate():
    codes = centres(6, 512)
    assert smallest_distance(codes[:, 256:]) >= 140


def test_majority_of_the_centres_of_an_items_labels():
    codes = torch.tensor([[1.0, 1, -1, -1], [-1, 1, 1, -1], [1, -1, 1, -1]])
    targets = torch.tensor([[0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
    expected = [[-1, 1, 1, -1], [1, 0, 0, -1], [1, 1, 1, -1], [0, 0, 0, 0]]
    assert majority_centres(targets, codes).tolist() == expected
