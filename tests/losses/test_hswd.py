"""HSWD against every possible transport plan, and as the quantization term of other losses."""

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from nestkala.losses.contract import HashLoss
from nestkala.losses.dcc import random_codes
from nestkala.losses.dpsh import DPSH
from nestkala.losses.hswd import WithHSWD, hswd
from nestkala.losses.kiddo import KIDDO
from nestkala.losses.nested import NestedLoss

NUM, CLASSES, BITS = 8, 3, 4
INDICES = torch.tensor([5, 0, 3, 1, 7])


def random_h(size, bits=BITS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.tanh(torch.randn(size, bits, generator=generator, dtype=torch.float64)).requires_grad_()


def data(seed=0):
    generator = torch.Generator().manual_seed(50 + seed)
    targets = (torch.rand(NUM, CLASSES, generator=generator) < 0.4).double()
    targets[0] = 0
    return targets, random_codes(NUM, BITS, generator).double()


def anchors_of(seed=0):
    generator = torch.Generator().manual_seed(70 + seed)
    return torch.randn(CLASSES, BITS, generator=generator, dtype=torch.float64).requires_grad_()


def cheapest(h, copies):
    """Each sample `copies` times; of all ways to send half of the copies to -1, half to +1, the cheapest, per bit."""
    size, total = copies * len(h), 0.0
    for column in h.T:
        samples = [column[n // copies] for n in range(size)]
        costs = []
        for below in itertools.combinations(range(size), size // 2):
            costs.append(sum((x.item() + 1) ** 2 if n in below else (x.item() - 1) ** 2 for n, x in enumerate(samples)))
            if costs[-1] == min(costs):
                best = below
        total = total + sum((x + 1) ** 2 if n in best else (x - 1) ** 2 for n, x in enumerate(samples)) / size
    return total / h.shape[1]


class Plain(HashLoss):
    """A loss without quantization, with a parameter and anchors of its own."""

    paper = "Nobody (2000)"
    multi_label = False
    uses_anchors = True

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0).double())
        self.ended = []

    def terms(self, h, targets, indices, anchors=None):  # noqa: ARG002
        return {"size": self.scale * h.square().mean()}

    def end_epoch(self, anchors=None):
        self.ended.append(anchors)


@pytest.mark.parametrize(("size", "copies"), [(1, 2), (2, 1), (2, 2), (3, 2), (4, 1), (5, 2), (6, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_cheapest_plan_of_all_with_its_gradient(seed, size, copies):
    h = random_h(size, 3, seed)
    ours, theirs = hswd(h), cheapest(h, copies)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    gradients = (torch.autograd.grad(value, h)[0] for value in (ours, theirs))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [16, 33])
def test_it_is_the_optimal_assignment_of_a_larger_batch(size):
    h = random_h(size, 2, seed=4).detach()
    twice = h.repeat_interleave(2, dim=0)
    signs = torch.tensor([-1.0, 1.0]).repeat_interleave(size).double()
    expected = 0.0
    for column in twice.T:
        costs = (column[:, None] - signs).square().numpy()
        expected += costs[linear_sum_assignment(costs)].mean() / 2
    torch.testing.assert_close(hswd(h).item(), expected, rtol=1e-10, atol=1e-12)


def test_it_is_zero_for_balanced_signs_alone():
    balanced = torch.tensor([[1.0, -1], [-1, 1], [1, 1], [-1, -1]])
    assert hswd(balanced).item() == 0
    assert hswd(balanced * 0.9).item() == pytest.approx(0.01)
    unbalanced = balanced.clone()
    unbalanced[1, 0] = 1
    assert hswd(unbalanced).item() == 4 / 8  # one of eight values is two away
    assert hswd(torch.ones(3, 1)).item() == pytest.approx((4 + 2 + 0) / 3)


def test_neither_order_of_batch_and_bits_nor_a_bits_sign_matters():
    for size in (6, 7):
        h = random_h(size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
        bits, flip = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, -1, -1, 1]).double()
        value = hswd(h)
        torch.testing.assert_close(hswd(h[order]), value, rtol=1e-12, atol=0)
        torch.testing.assert_close(hswd(h[:, bits]), value, rtol=1e-12, atol=0)
        torch.testing.assert_close(hswd(h * flip), value, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("bits", [1, 64, 512])
def test_it_is_finite_for_saturated_and_equal_codes(size, bits):
    for value in (1.0, -1.0, 0.0):
        h = torch.full((size, bits), value, requires_grad=True)
        distance = hswd(h)
        distance.backward()
        assert torch.isfinite(distance)
        assert torch.isfinite(h.grad).all()
        assert distance.dtype == h.dtype


@pytest.mark.parametrize("weight", [0.1, 3.0, 0.0])
def test_it_takes_the_place_of_the_quantization_and_leaves_the_other_terms(weight):
    targets, codes = data()
    h, anchors = random_h(len(INDICES)), anchors_of()
    for make in (DPSH, lambda: KIDDO(targets, codes)):
        alone = make().terms(h, targets[INDICES], INDICES, anchors)
        terms = WithHSWD(make(), weight).terms(h, targets[INDICES], INDICES, anchors)
        assert terms.keys() == alone.keys() - {"quantization"} | {"hswd"}
        for name in alone.keys() - {"quantization"}:
            torch.testing.assert_close(terms[name], alone[name])
        torch.testing.assert_close(terms["hswd"], weight * cheapest(h, 2), rtol=1e-10, atol=1e-12)


def test_a_loss_without_quantization_gets_one():
    targets, _ = data()
    h = random_h(len(INDICES))
    terms = WithHSWD(Plain()).terms(h, targets[INDICES], INDICES)
    assert terms.keys() == {"size", "hswd"}
    torch.testing.assert_close(terms["size"], 2 * h.square().mean())
    torch.testing.assert_close(WithHSWD(Plain())(h, targets[INDICES], INDICES), terms["size"] + 0.1 * hswd(h))


@pytest.mark.parametrize("base", [DPSH(), KIDDO(*data()), Plain()])
def test_paper_labels_and_anchors_are_the_bases(base):
    loss = WithHSWD(base)
    assert loss.paper == f"{base.paper} with HSWD (Doan et al., CVPR 2022)"
    assert loss.multi_label == base.multi_label
    assert loss.uses_anchors == base.uses_anchors
    assert NestedLoss([BITS], lambda _: loss).uses_anchors == base.uses_anchors
    assert not WithHSWD.uses_anchors
    assert WithHSWD.multi_label


def test_the_end_of_an_epoch_is_the_bases():
    targets, codes = data()
    h, anchors = random_h(len(INDICES)), anchors_of()
    bare, wrapped = KIDDO(targets, codes), WithHSWD(KIDDO(targets, codes))
    for loss in (bare, wrapped):
        loss(h, targets[INDICES], INDICES, anchors)
        loss.end_epoch(anchors)
    assert not torch.equal(bare.codes, codes)
    assert torch.equal(bare.codes, wrapped.base.codes)
    assert torch.equal(bare.memory, wrapped.base.memory)
    plain = WithHSWD(Plain())
    plain.end_epoch(anchors)
    plain.end_epoch()
    assert plain.base.ended == [anchors, None]


def test_errors_are_the_bases():
    with pytest.raises(ValueError, match="needs anchors"):
        WithHSWD(KIDDO(*data()))(random_h(2), data()[0][:2], torch.arange(2))


def test_the_bases_parameters_are_trained():
    loss = WithHSWD(Plain())
    assert list(loss.parameters()) == [loss.base.scale]


def test_state_dict_is_the_bases_and_goes_on_with_the_same_numbers():
    targets, codes = data()
    h, anchors = random_h(len(INDICES)), anchors_of()
    trained, fresh = WithHSWD(KIDDO(targets, codes)), WithHSWD(KIDDO(targets, -codes))
    trained(h, targets[INDICES], INDICES, anchors)
    trained.end_epoch(anchors)
    state = {name: value.clone() for name, value in trained.state_dict().items()}
    assert state.keys() == {"base.codes", "base.memory"}
    fresh.load_state_dict(state)
    later = random_h(len(INDICES), seed=1)
    assert torch.equal(*(loss(later, targets[INDICES], INDICES, anchors) for loss in (trained, fresh)))
    for loss in (trained, fresh):
        loss.end_epoch(anchors_of(1))
    assert torch.equal(trained.base.codes, fresh.base.codes)
    assert torch.equal(trained.base.memory, fresh.base.memory)


def test_every_length_of_a_nested_loss_takes_its_own():
    targets, codes = data()
    h, anchors = random_h(len(INDICES)), anchors_of()
    nested = NestedLoss(
        (2, 4), lambda bits: WithHSWD(KIDDO(targets, codes[:, :bits])), weighting="uniform", distillation=0
    )
    terms = nested.terms(h, targets[INDICES], INDICES, anchors)
    for bits in (2, 4):
        torch.testing.assert_close(terms.terms[bits]["hswd"], 0.1 * hswd(h[:, :bits]))
    terms.total.backward()
    assert h.grad.abs().sum() > 0
    assert anchors.grad.abs().sum() > 0
