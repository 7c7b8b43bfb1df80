"""Weighting, distillation and the nested loss over lengths, shapes and numbers of every size."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import HALF_TO_DOUBLE, general, multi_hot, relaxed
from torch import Tensor

from nestkala.losses import DPSH, NestedLoss
from nestkala.losses.nested import prefix
from nestkala.losses.weighting import dominance_weights, halving_weights
from tests.losses.test_distillation import distill
from tests.losses.test_weighting import slow_weights, worst_margin

some_lengths = st.lists(st.integers(1, 24), min_size=1, max_size=6, unique=True).map(sorted)


@st.composite
def gradients(draw: st.DrawFn) -> tuple[list[Tensor], list[int]]:
    """One (L, 2) a length, double precision, each of a size of its own, some against another; rows beyond are 0."""
    lengths, found = draw(some_lengths), []
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    for bits in lengths:
        g = torch.randn(lengths[-1], 2, generator=generator, dtype=torch.float64)
        g *= draw(st.sampled_from([0.0, 1e-8, 1.0, 1e4]))
        if found and draw(st.booleans()):
            g -= draw(st.sampled_from([1.0, 30.0])) * draw(st.sampled_from(found))
        g[bits:] = 0
        found.append(g)
    return found, lengths


@given(gradients())
def test_weights_are_the_formulas_and_no_shorter_length_is_reversed(given_: tuple[list[Tensor], list[int]]) -> None:
    found, lengths = given_
    weights = dominance_weights(found, lengths)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(len(lengths))
    assert weights.tolist() == pytest.approx(slow_weights(found, lengths), rel=1e-6, abs=1e-12)
    assert worst_margin(weights.tolist(), found, lengths) > -1e-9


@given(gradients(), st.sampled_from(HALF_TO_DOUBLE), st.sampled_from([1.0, 1e-30, 1e30]))
def test_weights_are_finite_for_gradients_of_any_size_and_precision(
    given_: tuple[list[Tensor], list[int]], dtype: torch.dtype, size: float
) -> None:
    found, lengths = given_
    most = torch.finfo(dtype).max
    weights = dominance_weights([(size * g).clamp(-most, most).to(dtype) for g in found], lengths)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(len(lengths), rel=1e-5)


@given(st.integers(1, 60))
def test_halving_weights_halve_and_sum_to_their_number(num: int) -> None:
    weights = halving_weights(num)
    assert sum(weights) == pytest.approx(num)
    assert all(shorter == 2 * longer for shorter, longer in itertools.pairwise(weights))


@given(st.data())
def test_distillation_is_between_its_bounds_and_has_a_finite_gradient(data: st.DataObject) -> None:
    size, bits, more = (data.draw(st.integers(1, most)) for most in (7, 64, 64))
    shorter, longer = data.draw(relaxed(size, bits)).requires_grad_(), data.draw(relaxed(size, bits + more))
    value = distill(shorter, longer)
    value.backward()
    assert 0 <= value.item() <= 4 / size + 1e-12
    assert shorter.grad.isfinite().all()
    flipped = distill(-shorter, longer)  # the products of two codes do not see it
    torch.testing.assert_close(flipped, value)


@given(st.data(), st.sampled_from(["adaptive", "uniform", "halving"]), st.sampled_from([0.0, 0.7]))
def test_the_nested_loss_is_the_weighted_sum_of_its_lengths(
    data: st.DataObject, weighting: str, distillation: float
) -> None:
    lengths, size, classes = data.draw(some_lengths), data.draw(st.integers(1, 6)), data.draw(st.integers(2, 4))
    dtype = data.draw(st.sampled_from(HALF_TO_DOUBLE))
    targets = data.draw(multi_hot(size, classes))
    weight = general(lengths[-1], 3).to(dtype).requires_grad_()
    h = torch.tanh(general(size, 3, seed=1).to(dtype) @ weight.T)
    nested = NestedLoss(lengths, lambda bits: DPSH(), weighting, distillation)  # noqa: ARG005
    result = nested.terms(h, targets, torch.arange(size), weight=weight)
    wide = h.detach().to(torch.promote_types(dtype, torch.float32))
    sums = [DPSH()(wide[:, prefix(bits)], targets, torch.arange(size)) for bits in lengths]
    for k in range(len(lengths) - 1):
        sums[k] = sums[k] + distillation * distill(wide[:, : lengths[k]], wide[:, : lengths[k + 1]])
    torch.testing.assert_close(result.sums, torch.stack(sums))
    assert result.weights.sum().item() == pytest.approx(len(lengths), rel=1e-5)
    torch.testing.assert_close(result.total, (result.weights * result.sums).sum())
    result.total.backward()
    assert weight.grad.isfinite().all()


anything = st.one_of(st.integers(-9, 9), st.floats(), st.booleans())


@given(st.lists(anything, max_size=4))
def test_lengths_are_taken_or_refused(lengths: list[object]) -> None:
    good = bool(lengths) and all(type(bits) is int and bits >= 1 for bits in lengths)
    if good and lengths == sorted(set(lengths)):  # type: ignore[type-var]
        assert NestedLoss(lengths, lambda bits: DPSH()).width == lengths[-1]  # type: ignore[arg-type]  # noqa: ARG005
        return
    with pytest.raises(ValueError, match="lengths must be ascending whole numbers"):
        NestedLoss(lengths, lambda bits: DPSH())  # type: ignore[arg-type]  # noqa: ARG005


@pytest.mark.parametrize("distillation", [-1.0, float("nan"), float("inf")])
def test_a_distillation_out_of_its_range_is_refused(distillation: float) -> None:
    with pytest.raises(ValueError, match=f"distillation must be 0 or more, not {distillation}"):
        NestedLoss((4, 8), lambda bits: DPSH(), distillation=distillation)  # noqa: ARG005
