"""Adaptive gradient weighting against its formulas and the guarantee that it exists for."""

import pytest
import torch

from nestkala.losses.weighting import dominance_weights

WIDTH = 3
KINDS = ("random", "opposed", "chained", "dominating", "tiny", "zero", "all zero")


def gradients_of(kind, m, seed):
    """One (L, WIDTH) a length, float64, rows beyond its own zero; and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (torch.randperm(12, generator=generator)[:m].sort().values + 1).tolist()

    def normal(rows):
        return torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)

    def pick(n):
        return int(torch.randint(n, (1,), generator=generator))

    gradients = []
    for bits in lengths:
        g = torch.zeros(lengths[-1], WIDTH, dtype=torch.float64)
        g[:bits] = normal(bits)
        if kind == "opposed" and gradients:
            g -= 10.0 ** (3 * torch.rand(1, generator=generator).item()) * gradients[pick(len(gradients))]
        if kind == "chained" and gradients:
            g = 0.01 * g - 10 * gradients[-1]
        gradients.append(g)
    if kind == "dominating":
        gradients[pick(m)] *= 1e4
    if kind == "tiny":
        gradients[pick(m)] *= 1e-8
    if kind in ("zero", "all zero"):
        for k in [pick(m)] if kind == "zero" else range(m):
            gradients[k] *= 0
    return gradients, lengths


def pulls(gradients, lengths):
    """<g_k, g_j> over the rows that k owns."""
    return [[(a[:b] * c[:b]).sum().item() for c in gradients] for a, b in zip(gradients, lengths, strict=True)]


def slow_weights(gradients, lengths, bound_by_first_only=False, norm_of_first=False):
    m, dots = len(lengths), pulls(gradients, lengths)
    norms = [dots[0 if norm_of_first else k][0 if norm_of_first else k] for k in range(m)]
    a = [[1.0] * m for _ in range(m)]
    for k in range(m):
        for j in range(k + 1, m):
            if dots[k][j] < 0 and -dots[k][j] > norms[k] / (m - 1):
                a[k][j] = norms[k] / ((m - 1) * -dots[k][j])
        for j in range(k + 2, m):
            a[k][j] = min(a[k][j], a[k][k + 1] if bound_by_first_only else a[k][j - 1])
    weights = [1.0] * m
    for j in range(m):
        for k in range(j):
            weights[j] *= a[k][j]
    return [w * m / sum(weights) for w in weights]


def worst_margin(weights, gradients, lengths):
    """The smallest w_k |g_k|^2 + sum_{j>k} w_j <g_k, g_j>, relative to the largest summand."""
    dots, margins = pulls(gradients, lengths), []
    for k, row in enumerate(dots):
        summands = [w * dot for w, dot in zip(weights[k:], row[k:], strict=True)]
        margins.append(sum(summands) / (max(map(abs, summands)) or 1.0))
    return min(margins)


@pytest.mark.parametrize("m", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_formulas_and_never_reverses_a_shorter_length(kind, m):
    for seed in range(25):
        gradients, lengths = gradients_of(kind, m, seed)
        weights = dominance_weights(gradients, lengths)
        assert weights.dtype == torch.float64
        assert weights.shape == (m,)
        torch.testing.assert_close(
            weights, torch.tensor(slow_weights(gradients, lengths), dtype=torch.float64), rtol=1e-9, atol=1e-300
        )
        assert weights.sum().item() == pytest.approx(m, rel=1e-12)
        assert (weights >= 0).all()
        assert worst_margin(weights.tolist(), gradients, lengths) >= -1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_guarantee_holds_in_single_precision(kind):
    for seed in range(40):
        gradients, lengths = gradients_of(kind, 6, seed)
        gradients = [g.float() for g in gradients]
        weights = dominance_weights(gradients, lengths)
        assert weights.dtype == torch.float32
        exact = [g.double() for g in gradients]
        assert worst_margin(weights.tolist(), exact, lengths) >= -1e-5


def test_some_draws_do_make_the_weighting_act():
    for kind in ("random", "opposed", "chained", "dominating", "zero"):
        acted = 0
        for seed in range(25):
            gradients, lengths = gradients_of(kind, 5, seed)
            acted += worst_margin([1.0] * 5, gradients, lengths) < -1e-3
        assert acted >= (0 if kind == "zero" else 3), kind


def test_bounding_by_the_nearest_pair_alone_would_break_the_guarantee_at_four_lengths():
    gradients = [torch.zeros(4, 1, dtype=torch.float64) for _ in range(4)]
    gradients[0][0] = 1
    gradients[1][1] = 1
    gradients[2][0], gradients[2][2] = -100, 100
    gradients[3][2] = -100
    lengths = [1, 2, 3, 4]
    naive = slow_weights(gradients, lengths, bound_by_first_only=True)
    assert worst_margin(naive, gradients, lengths) < -0.5
    assert worst_margin(dominance_weights(gradients, lengths).tolist(), gradients, lengths) >= -1e-12


def test_the_published_rule_fails_at_three_lengths_already():
    """It compares every length with the shortest one's norm."""
    gradients = [torch.zeros(3, 1, dtype=torch.float64) for _ in range(3)]
    gradients[0][0], gradients[1][1], gradients[2][1] = 10, 1, -20
    lengths = [1, 2, 3]
    published = slow_weights(gradients, lengths, bound_by_first_only=True, norm_of_first=True)
    assert published == [1, 1, 1]
    assert worst_margin(published, gradients, lengths) == pytest.approx((1 - 20) / 20)
    assert worst_margin(dominance_weights(gradients, lengths).tolist(), gradients, lengths) >= -1e-12


def test_with_norms_of_their_own_the_published_bound_holds_for_three_lengths():
    for kind in KINDS:
        for seed in range(25):
            gradients, lengths = gradients_of(kind, 3, seed)
            naive = slow_weights(gradients, lengths, bound_by_first_only=True)
            assert worst_margin(naive, gradients, lengths) >= -1e-9


def test_lengths_that_agree_weigh_alike():
    g = torch.ones(8, WIDTH)
    gradients = [torch.where(torch.arange(8)[:, None] < bits, g, 0) for bits in (2, 4, 8)]
    assert dominance_weights(gradients, (2, 4, 8)).tolist() == [1, 1, 1]


def test_a_mild_opposition_is_left_alone_and_a_strong_one_scaled_to_the_bound():
    short, long = torch.tensor([[2.0], [0.0]]), torch.tensor([[-2.0], [5.0]])
    assert dominance_weights([short, long], (1, 2)).tolist() == [1, 1]
    weights = dominance_weights([short, 4 * long], (1, 2)).tolist()
    assert weights == pytest.approx([2 / 1.25, 2 * 0.25 / 1.25])


def test_only_the_rows_that_the_shorter_length_owns_count():
    short, long = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [-1000.0]])
    longest = torch.tensor([[1.0], [1000.0]])
    assert dominance_weights([short, long], (1, 2)).tolist() == [1, 1]
    weights = dominance_weights([short, long, longest], (1, 2, 2)).tolist()
    assert weights[0] == weights[1] > weights[2]


def test_weights_carry_no_gradient():
    gradients = [torch.randn(4, 2, requires_grad=True) for _ in range(2)]
    assert not dominance_weights(gradients, (2, 4)).requires_grad
