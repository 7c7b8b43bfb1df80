"""Long-to-short self-distillation against a double loop over similarities."""

import pytest
import torch

from nestkala.losses import distillation


def distill(shorter, longer):
    padded = torch.nn.functional.pad(shorter, (0, longer.shape[1] - shorter.shape[1]))
    return distillation.distill(torch.stack([padded, longer]))[0]


def random_h(size, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64)).requires_grad_()


def slow_rows(h):
    """Rows of H H^T, each divided by its norm, as lists of scalars."""
    size, bits = h.shape
    rows = [[sum(h[i, k] * h[j, k] for k in range(bits)) for j in range(size)] for i in range(size)]
    return [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in rows]


def slow_distill(shorter, longer):
    size = len(shorter)
    student, teacher = slow_rows(shorter), slow_rows(longer.detach())
    return sum((student[i][j] - teacher[i][j]) ** 2 for i in range(size) for j in range(size)) / size**2


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_double_loop(seed, size):
    shorter, longer = random_h(size, 3, seed), random_h(size, 5, 50 + seed)
    ours, theirs = distill(shorter, longer), slow_distill(shorter, longer)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(
        torch.autograd.grad(ours, shorter)[0], torch.autograd.grad(theirs, shorter)[0], rtol=1e-9, atol=1e-12
    )


def test_no_gradient_reaches_the_longer_code():
    shorter, longer = random_h(6, 3, 0), random_h(6, 5, 1)
    for_shorter, for_longer = torch.autograd.grad(distill(shorter, longer), (shorter, longer))
    assert not for_longer.any()
    assert for_shorter.abs().max() > 0


def test_within_one_nested_code_the_bits_of_the_longer_alone_get_none():
    h = random_h(6, 5, 0)
    (gradient,) = torch.autograd.grad(distill(h[:, :3], h), h)
    expected = torch.autograd.grad(slow_distill(h[:, :3], h), h)[0]
    assert torch.equal(gradient[:, 3:], torch.zeros(6, 2).double())
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_equal_similarities_cost_nothing():
    h = random_h(6, 4, 0)
    assert distill(h, torch.cat([h, h], dim=1)).item() == pytest.approx(0, abs=1e-15)


def test_opposite_similarities_cost_the_most():
    shorter = torch.tensor([[1.0], [-1.0]])
    longer = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert distill(shorter, longer).item() == pytest.approx(2 * 2 / 4)


def test_codes_that_are_all_zero_give_finite_gradients():
    h = torch.zeros(3, 2, requires_grad=True)
    value = distill(h, torch.rand(3, 4))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(h.grad).all()
