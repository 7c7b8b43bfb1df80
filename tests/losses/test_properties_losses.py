"""Every loss that ships, over shapes, labels and types of number: against loops, and by what may not matter."""

from dataclasses import replace
from inspect import Parameter, signature

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import HALF_TO_DOUBLE, general, multi_hot, relaxed, training_set
from torch import Tensor

from nestkala.losses import HashLoss, TrainingSet, WithHSWD
from nestkala.plugins import plugins
from tests.losses import test_adsh, test_center_losses, test_dpsh, test_dsdh, test_kiddo, test_pairwise_losses

LOSSES = {name: plugin.load() for name, plugin in plugins("losses").items()}
PAIRWISE = ("adsh", "dbdh", "dch", "dhn", "dpsh", "dsdh", "dsh", "dtsh", "hashnet", "lcdsh")  # labels only by pairs
every_loss = pytest.mark.parametrize("name", LOSSES)


@st.composite
def problems(draw: st.DrawFn, name: str, most_bits: int = 6, most_images: int = 5) -> tuple[TrainingSet, Tensor, int]:
    """A training set, the indices of a batch, and a number of bits."""
    num, classes, bits = (draw(st.integers(1, most)) for most in (most_images, 4, most_bits))
    targets = draw(multi_hot(num, classes, single=not LOSSES[name].multi_label))
    indices = draw(st.lists(st.integers(0, num - 1), min_size=1, max_size=num, unique=True))
    return training_set(targets.double(), bits, draw(st.integers(0, 99))), torch.tensor(indices), bits


def made(name: str, training: TrainingSet, bits: int) -> HashLoss:
    return LOSSES[name].for_training(bits, training)


def anchors_for(training: TrainingSet, bits: int) -> Tensor:
    return general(training.targets.shape[1], bits, seed=7)


def expected_terms(name: str, loss: HashLoss, training: TrainingSet, h: Tensor, indices: Tensor) -> dict[str, Tensor]:
    """By the loops of each loss's own tests."""
    targets, all_targets = training.targets[indices], training.targets
    bits = h.shape[1]
    memory = torch.zeros(len(all_targets), bits, dtype=h.dtype)
    memory[indices] = h.detach()
    kind = LOSSES[name]
    if name == "dhn":
        return test_pairwise_losses.slow_dhn(h, targets, memory=memory, all_targets=all_targets)
    if kind in test_pairwise_losses.SLOW:
        return test_pairwise_losses.SLOW[kind](h, targets)
    match name:
        case "dpsh":
            return test_dpsh.slow_terms(h, targets, eta=0.1)
        case "kiddo":
            codes, anchors = training.codes[indices], anchors_for(training, bits)
            return test_kiddo.slow_terms(h, targets, codes, anchors, alpha=0.1, beta=1.0, gamma=3.0)
        case "dsdh":
            return test_dsdh.slow_terms(h, targets, indices, 0 * memory, training.codes, all_targets, eta=0.1)
        case "adsh":
            return test_adsh.slow_terms(h, indices, training.codes, all_targets, gamma=200.0)
    return test_center_losses.SLOW[kind](
        h,
        targets,
        centers=training.centers(bits),
        training_targets=all_targets,
        memory=dict(zip(indices.tolist(), h.detach(), strict=True)),
        weight=getattr(loss, "classifier", torch.nn.Linear(1, 1)).weight.double(),
    )


@pytest.mark.slow
@every_loss
@given(st.data())
def test_terms_are_those_of_the_loops(name: str, data: st.DataObject) -> None:
    training, indices, bits = data.draw(problems(name))
    if name == "dch" and bits == 1:
        return  # has no slope there: a test of its own
    loss, h = made(name, training, bits), general(len(indices), bits, data.draw(st.integers(0, 99)))
    anchors = anchors_for(training, bits)
    expected = expected_terms(name, loss, training, h, indices)
    if name == "mdsh" and training.targets.shape[1] == 1:
        expected["central"] = torch.zeros(())  # nothing to tell apart, where the formula says 0 * log 0
    terms = loss.terms(h, training.targets[indices], indices, anchors)
    assert terms.keys() == expected.keys()
    for term, value in expected.items():
        torch.testing.assert_close(
            terms[term].item(), torch.as_tensor(value).item(), rtol=1e-9, atol=1e-11, msg=lambda m, t=term: t + m
        )


@every_loss
@given(st.data())
def test_value_gradient_and_what_is_kept_are_finite(name: str, data: st.DataObject) -> None:
    num, classes, bits = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5)), data.draw(st.integers(1, 512))
    kind, dtype = LOSSES[name], data.draw(st.sampled_from(HALF_TO_DOUBLE))
    targets = data.draw(multi_hot(num, classes, single=not kind.multi_label))
    training = training_set(targets.to(data.draw(st.sampled_from([torch.float32, torch.float64]))), bits)
    loss, indices = made(name, training, bits), torch.arange(num)
    loss = WithHSWD(loss) if data.draw(st.booleans()) else loss
    anchors = general(classes, bits).to(dtype).requires_grad_()
    for _ in range(data.draw(st.sampled_from([1, 4]))):  # epochs
        h = data.draw(relaxed(num, bits)).to(dtype).requires_grad_()
        value = loss(h, targets.to(dtype), indices, anchors)
        value.backward()
        assert value.shape == ()
        assert value.isfinite()
        if h.dtype != torch.float16 or name != "dch":  # whose slope may be steeper than half precision can tell
            assert h.grad.isfinite().all()
        loss.end_epoch(anchors.detach())
        objective = loss.discrete_objective(anchors.detach())
        assert objective is None or objective.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())
    assert all(kept.isfinite().all() for kept in loss.state_dict().values())
    assert loss.database_codes is None or (loss.database_codes.abs() == 1).all()


@every_loss
@given(st.data())
def test_half_precision_is_close_to_double(name: str, data: st.DataObject) -> None:
    training, indices, bits = data.draw(problems(name, most_bits=512, most_images=40))
    rounded = general(len(indices), bits).to(data.draw(st.sampled_from(HALF_TO_DOUBLE))).clamp(-0.99, 0.99)
    targets, anchors = training.targets[indices], anchors_for(training, bits)
    value, exact = (
        made(name, training, bits)(h, targets.to(h.dtype), indices, anchors) for h in (rounded, rounded.double())
    )
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-6)


@every_loss
@given(st.data())
def test_neither_the_order_of_the_batch_nor_that_of_the_classes_matters(name: str, data: st.DataObject) -> None:
    training, indices, bits = data.draw(problems(name))
    batch = data.draw(st.permutations(range(len(indices))))
    classes = data.draw(st.permutations(range(training.targets.shape[1])))
    other = replace(training, targets=training.targets[:, classes], centers=lambda b: training.centers(b)[classes])
    one, two = made(name, training, bits), made(name, other, bits)
    if name == "greedyhash":
        two.classifier.weight.data = one.classifier.weight.data[classes]
    h, anchors = data.draw(relaxed(len(indices), bits)), anchors_for(training, bits)
    value = one(h, training.targets[indices], indices, anchors)
    shuffled = two(h[batch], other.targets[indices[batch]], indices[batch], anchors[classes])
    torch.testing.assert_close(shuffled, value, rtol=1e-9, atol=1e-12)
    one.end_epoch(anchors)
    two.end_epoch(anchors[classes])
    for (key, kept), same in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        if key in ("memory", "epoch", "epochs"):
            assert torch.equal(kept, same), key


@pytest.mark.parametrize("name", PAIRWISE)
@given(st.data())
def test_a_class_that_is_there_twice_tells_pairs_nothing_new(name: str, data: st.DataObject) -> None:
    training, indices, bits = data.draw(problems(name))
    twice = replace(training, targets=training.targets.repeat(1, 2))
    h = data.draw(relaxed(len(indices), bits))
    values = (
        made(name, given, bits)(h, given.targets[indices], indices, anchors_for(given, bits))
        for given in (training, twice)
    )
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["dch", "orthohash-arc", "orthohash-cos"])
@given(st.data(), st.floats(1e-3, 1e3))
def test_losses_by_cosines_see_directions_alone(name: str, data: st.DataObject, scale: float) -> None:
    training, indices, bits = data.draw(problems(name))
    h, targets, anchors = general(len(indices), bits), training.targets[indices], anchors_for(training, bits)
    values = (made(name, training, bits)(x, targets, indices, anchors) for x in (h, scale * h))
    torch.testing.assert_close(*values, rtol=1e-8, atol=1e-10)


@every_loss
def test_a_number_out_of_its_range_is_refused_by_name(name: str) -> None:
    training = training_set(torch.eye(3), 4)
    numbers = [
        key for key, parameter in signature(LOSSES[name]).parameters.items() if parameter.default is not Parameter.empty
    ]
    for number in numbers:
        for wrong in (-1.0, float("nan"), -float("inf"), float("inf")):
            with pytest.raises(ValueError, match=rf"^{number} must be .*, not {wrong}"):
                LOSSES[name].for_training(4, training, **{number: wrong})


@pytest.mark.parametrize("name", ["adsh", "dhn", "dsdh", "kiddo", "mdsh"])
@given(st.data())
def test_a_batch_that_does_not_fit_the_training_set_is_refused_and_not_kept(name: str, data: st.DataObject) -> None:
    training = training_set(torch.eye(4).double(), 5)
    loss = made(name, training, 5)
    rows, bits, labeled, classes, indexed = (data.draw(st.integers(1, 6)) for _ in range(5))
    indices = torch.arange(indexed) % 4
    if (rows, rows, bits, classes) == (labeled, indexed, 5, 4):
        return
    with pytest.raises(
        ValueError,
        match=r"do(es)? not fit|must be \(C, b\)|has .* (columns|rows)|have .* classes, |single column",
    ):
        loss(general(rows, bits), torch.ones(labeled, classes), indices, general(4, 5))
    assert not loss.memory.any()
