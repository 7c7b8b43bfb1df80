"""Signs: exactly -1 or +1, and what their gradients are."""

import pytest
import torch

from nestkala.losses.signs import sign_through, signs

ENTRIES = [0.3, -0.3, 0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 0.999999, -0.1]
EXPECTED = [1, -1, 1, 1, 1, -1, 1, -1, 1, -1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [signs, sign_through])
def test_zero_counts_as_plus_one_and_the_dtype_stays(function, dtype):
    codes = function(torch.tensor(ENTRIES, dtype=dtype))
    assert torch.equal(codes, torch.tensor(EXPECTED, dtype=dtype))
    assert codes.dtype == dtype


def test_steps_are_exact_for_any_number():
    h = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    h = torch.cat([h * 10.0**power for power in (-20, 0, 3, 9, 30)])
    assert set(sign_through(h).tolist()) == {-1.0, 1.0}


def test_signs_are_constants():
    assert not signs(torch.randn(3, 4, requires_grad=True)).requires_grad


def test_gradients_pass_through_the_step_unchanged():
    h, weights = torch.tensor(ENTRIES, requires_grad=True), torch.randn(len(ENTRIES))
    codes = sign_through(h)
    (codes.square() @ weights + codes.sum()).backward()
    assert torch.equal(h.grad, 2 * torch.tensor(EXPECTED).float() * weights + 1)


def test_the_argument_is_left_as_it_is():
    h = torch.tensor(ENTRIES)
    signs(h), sign_through(h)
    assert torch.equal(h, torch.tensor(ENTRIES))
