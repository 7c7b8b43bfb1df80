"""DPSH against a double loop over pairs, one entry at a time."""

import pytest
import torch

from nestkala.losses import DPSH


def batch(seed=0, size=6, bits=5, classes=4):
    generator = torch.Generator().manual_seed(seed)
    h = torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64))
    targets = (torch.rand(size, classes, generator=generator) < 0.35).double()
    targets[0] = 0  # an image without labels is similar to nothing, itself included
    targets[1, :2] = 1
    return h.requires_grad_(), targets, torch.arange(size)


def slow_terms(h, targets, eta):
    size, bits = h.shape
    similarity = quantization = 0.0
    for i in range(size):
        for j in range(size):
            theta = sum(h[i, k] * h[j, k] for k in range(bits)) / 2
            similar = any(a and b for a, b in zip(targets[i].tolist(), targets[j].tolist(), strict=True))
            similarity = similarity + torch.log(1 + torch.exp(theta)) - (theta if similar else 0)
        for k in range(bits):
            sign = 1.0 if h[i, k].item() >= 0 else -1.0
            quantization = quantization + (h[i, k] - sign) ** 2
    return {"similarity": similarity / size**2, "quantization": eta * quantization / (size * bits)}


@pytest.mark.parametrize("eta", [0.1, 2.5, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_terms_and_gradients_equal_the_double_loop(seed, eta):
    h, targets, indices = batch(seed)
    terms, expected = DPSH(eta).terms(h, targets, indices), slow_terms(h, targets, eta)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-12, atol=1e-12)
        ours, theirs = (torch.autograd.grad(term, h, retain_graph=True)[0] for term in (terms[name], value))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_eta_is_a_tenth_unless_told_otherwise():
    h, targets, indices = batch()
    torch.testing.assert_close(
        DPSH().terms(h, targets, indices)["quantization"], slow_terms(h, targets, 0.1)["quantization"]
    )


def test_the_loss_is_the_sum_of_its_terms():
    h, targets, indices = batch()
    torch.testing.assert_close(DPSH(0.7)(h, targets, indices), sum(slow_terms(h, targets, 0.7).values()))


def test_zero_counts_as_plus_one():
    h = torch.tensor([[0.0, -0.0]], dtype=torch.float64, requires_grad=True)
    quantization = DPSH(1.0).terms(h, torch.ones(1, 1).double(), torch.tensor([0]))["quantization"]
    assert quantization.item() == 1.0
    assert torch.autograd.grad(quantization, h)[0].tolist() == [[-1.0, -1.0]]


def test_the_order_of_the_batch_does_not_matter():
    h, targets, indices = batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = DPSH()
    torch.testing.assert_close(loss(h, targets, indices), loss(h[order], targets[order], indices[order]))


def test_it_is_finite_for_saturated_codes_of_any_length():
    h = torch.ones(4, 512) * torch.tensor([1, -1, 1, -1])[:, None]
    h.requires_grad_()
    value = DPSH()(h, torch.eye(4), torch.arange(4))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(h.grad).all()


def test_it_needs_no_anchors_and_remembers_nothing():
    h, targets, indices = batch()
    loss = DPSH()
    assert not loss.uses_anchors
    before = loss(h, targets, indices, torch.randn(4, 5))
    loss.end_epoch()
    assert torch.equal(before, loss(h, targets, indices + 100))
    assert not loss.state_dict()
