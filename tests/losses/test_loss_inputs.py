"""What every loss takes as labels, what it refuses, and what it keeps of a batch that it does not learn from."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from strategies import general, training_set
from torch import Tensor

from nestkala.losses import (
    ADSH,
    DHN,
    DSDH,
    KIDDO,
    MDSH,
    HashLoss,
    NestedLoss,
    TermsError,
    TrainingSet,
    WithHSWD,
    multi_hot,
    shares_label,
)
from nestkala.plugins import plugins

LOSSES = {name: plugin.load() for name, plugin in plugins("losses").items()}
CLASSES, BITS = 4, 6
LABELS = torch.tensor([2, 0, 1, 3, 2, 0, 1, 0])
ONE_HOT = torch.tensor([[float(label == k) for k in range(CLASSES)] for label in LABELS.tolist()], dtype=torch.float64)
BATCH = torch.tensor([4, 0, 1, 7, 2])  # without the last class, 3
REMEMBERS = ("adsh", "dhn", "dsdh", "kiddo", "mdsh")
every_loss = pytest.mark.parametrize("name", LOSSES)
Called = Callable[..., Tensor]


def made(name: str) -> HashLoss:
    return LOSSES[name].for_training(BITS, training_set(ONE_HOT, BITS))


def anchors() -> Tensor:
    return general(CLASSES, BITS, seed=3)


def outputs(seed: int = 1) -> Tensor:
    return general(len(BATCH), BITS, seed).requires_grad_()


def alone(name: str) -> tuple[HashLoss, Called]:
    loss = made(name)
    return loss, loss


def with_hswd(name: str) -> tuple[HashLoss, Called]:
    loss = made(name)
    return loss, WithHSWD(loss)


def nested(name: str) -> tuple[HashLoss, Called]:
    loss = made(name)
    return loss, NestedLoss((BITS,), lambda bits: loss)  # noqa: ARG005


every_way = pytest.mark.parametrize("way", [alone, with_hswd, nested])


@every_loss
@every_way
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_class_indices_are_what_their_multi_hot_labels_are(name: str, way: Any, dtype: torch.dtype) -> None:
    found = []
    for targets in (ONE_HOT[BATCH], LABELS[BATCH].to(dtype), ONE_HOT[BATCH].bool(), ONE_HOT[BATCH].long()):
        h, (loss, call) = outputs(), way(name)
        value = call(h, targets, BATCH, anchors() if loss.uses_anchors else None)
        value.backward()
        loss.end_epoch(anchors())
        found.append([value, h.grad, *loss.state_dict().values()])
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


@every_loss
def test_labels_of_the_training_set_may_be_class_indices(name: str) -> None:
    training = training_set(ONE_HOT, BITS)
    by_indices = TrainingSet(LABELS, training.codes, training.centers, training.seed)
    one, other = (LOSSES[name].for_training(BITS, given) for given in (training, by_indices))
    values = [loss(outputs(), LABELS[BATCH], BATCH, anchors()) for loss in (one, other)]
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)  # DHN's memory is single where labels are whole numbers


@pytest.mark.parametrize("kind", [ADSH, DSDH, KIDDO, DHN, MDSH])
def test_so_may_those_that_a_loss_is_made_with(kind: Any) -> None:
    training = training_set(ONE_HOT, BITS)
    arguments: Callable[[Tensor], tuple[Any, ...]] = {
        DHN: lambda targets: (targets, BITS),
        MDSH: lambda targets: (training.centers(BITS), targets),
    }.get(kind, lambda targets: (targets, training.codes))
    values = [kind(*arguments(targets))(outputs(), LABELS[BATCH], BATCH, anchors()) for targets in (ONE_HOT, LABELS)]
    torch.testing.assert_close(values[1], values[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="a single column"):
        kind(*arguments(LABELS[:, None]))
    with pytest.raises(ValueError, match="must be 0 or 1, but contain"):
        kind(*arguments(2 * ONE_HOT))


WRONG = {
    "a column of class indices": (LABELS[BATCH][:, None], r"\(5, 1\) have a single column: pass class indices as \(5,"),
    "a column of floats": (LABELS[BATCH][:, None].clamp(max=1).double(), "have a single column"),
    "floats": (LABELS[BATCH].double(), "class indices must be integers, such as torch.int64, not torch.float64"),
    "truths": (LABELS[BATCH] > 0, "class indices must be integers, such as torch.int64, not torch.bool"),
    "negative": (LABELS[BATCH] - 1, "class indices must be 0 to .*, but contain -1"),
    "soft": (ONE_HOT[BATCH] / 2, "multi-hot targets must be 0 or 1, but contain 0.5"),
    "signs": (2 * ONE_HOT[BATCH] - 1, "multi-hot targets must be 0 or 1, but contain -1"),
    "counts": (2 * ONE_HOT[BATCH].long(), "multi-hot targets must be 0 or 1, but contain 2"),
    "nan": (ONE_HOT[BATCH] * torch.nan, "multi-hot targets must be 0 or 1, but contain nan"),
    "three axes": (ONE_HOT[BATCH][None], r"not of shape \(1, 5, 4\)"),
    "a number": (torch.tensor(1), r"class indices \(B,\) or multi-hot labels \(B, C\), not of shape \(\)"),
    "fewer rows": (ONE_HOT[BATCH][1:], "5 rows of h do not fit 4 rows of targets and 5 indices"),
    "fewer": (LABELS[BATCH][1:], "5 rows of h do not fit 4 rows of targets and 5 indices"),
}


@every_loss
@every_way
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_label_is_refused_and_nothing_kept(name: str, way: Any, wrong: str) -> None:
    targets, said = WRONG[wrong]
    loss, call = way(name)
    before = {key: kept.clone() for key, kept in loss.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        call(outputs(), targets, BATCH, anchors() if loss.uses_anchors else None)
    assert all(torch.equal(kept, before[key]) for key, kept in loss.state_dict().items())


@pytest.mark.parametrize("name", [name for name in LOSSES if made(name).num_classes is not None])
@every_way
def test_a_loss_that_knows_its_classes_refuses_others(name: str, way: Any) -> None:
    assert made(name).num_classes == CLASSES
    given = anchors() if made(name).uses_anchors else None
    for columns in (CLASSES - 1, CLASSES + 1):
        with pytest.raises(ValueError, match=f"targets have {columns} classes, expected {CLASSES}"):
            way(name)[1](outputs(), torch.eye(columns)[:1].repeat(5, 1), BATCH, given)
    with pytest.raises(ValueError, match="class indices must be 0 to 3, but contain 4"):
        way(name)[1](outputs(), LABELS[BATCH] + 2, BATCH, given)


def test_a_loss_of_ones_own_may_know_its_classes() -> None:
    class Prototypes(HashLoss):
        def __init__(self, num_classes: int) -> None:
            super().__init__()
            self.num_classes = num_classes
            self.weight = torch.nn.Parameter(general(num_classes, BITS))

        def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> Any:  # noqa: ARG002
            return {"cross-entropy": torch.nn.functional.cross_entropy(h @ self.weight.T, targets)}

    loss, h = Prototypes(CLASSES), outputs()
    expected = torch.nn.functional.cross_entropy(h @ loss.weight.T, LABELS[BATCH])
    for call in (loss, WithHSWD(loss, weight=0), NestedLoss((BITS,), lambda bits: loss)):  # noqa: ARG005
        torch.testing.assert_close(call(h, LABELS[BATCH], BATCH), expected)


def test_which_losses_know_their_classes() -> None:
    by_pairs = {"dbdh", "dch", "dpsh", "dsh", "dtsh", "hashnet", "lcdsh"}
    assert {name for name in LOSSES if made(name).num_classes is None} == by_pairs


@every_way
def test_a_column_is_taken_where_there_is_one_class(way: Any) -> None:
    h = general(3, BITS)
    one = way("dpsh")[1](h, torch.ones(3, 1), torch.arange(3), general(1, BITS))
    assert torch.equal(one, way("dpsh")[1](h, torch.zeros(3).long(), torch.arange(3)))


@every_way
@pytest.mark.parametrize(
    ("indices", "said"),
    [
        (BATCH.double(), "indices must be whole numbers"),
        (BATCH > 1, "indices must be whole numbers"),
        (BATCH[:, None], "indices must be whole numbers"),
        (BATCH[1:], "5 rows of h do not fit 5 rows of targets and 4 indices"),
    ],
)
def test_indices_are_whole_numbers(way: Any, indices: Tensor, said: str) -> None:
    for name in ("dpsh", "dhn"):
        with pytest.raises(ValueError, match=said):
            way(name)[1](outputs(), LABELS[BATCH], indices)


@pytest.mark.parametrize("name", REMEMBERS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_indices_may_be_of_any_whole_dtype(name: str, dtype: torch.dtype) -> None:
    one, other = made(name), made(name)
    values = [
        loss(outputs(), LABELS[BATCH], indices, anchors()) for loss, indices in ((one, BATCH), (other, BATCH.to(dtype)))
    ]
    assert torch.equal(*values)
    assert torch.equal(one.memory, other.memory)


@pytest.mark.parametrize("name", REMEMBERS)
@pytest.mark.parametrize("wrong", [-1, len(LABELS)])
def test_indices_outside_the_training_set_are_refused(name: str, wrong: int) -> None:
    loss, indices = made(name), torch.tensor([0, wrong])
    with pytest.raises(ValueError, match=f"indices must be 0 to 7, but contain {wrong}"):
        loss(general(2, BITS), LABELS[:2], indices, anchors())
    assert not loss.memory.any()


@every_way
def test_anchors_fit_codes_and_classes(way: Any) -> None:
    with pytest.raises(ValueError, match=r"anchors must be \(C, b\), but are \(4, 5\) with h \(5, 6\)"):
        way("kiddo")[1](outputs(), LABELS[BATCH], BATCH, general(4, 5))
    with pytest.raises(ValueError, match="anchors of 3 classes do not fit targets of 4 classes"):
        way("kiddo")[1](outputs(), LABELS[BATCH], BATCH, general(3, BITS))


@every_way
@pytest.mark.parametrize("h", [torch.zeros(5, BITS, 1), torch.zeros(BITS), torch.zeros(5, BITS).long()])
def test_h_is_a_matrix_of_floats(way: Any, h: Tensor) -> None:
    with pytest.raises(ValueError, match=r"h must be floating-point relaxed codes \(B, b\)"):
        way("dpsh")[1](h, LABELS[BATCH], BATCH)


def test_losses_of_different_classes_do_not_nest() -> None:
    training = {bits: training_set(torch.eye(3 + bits).double(), bits) for bits in (2, 4)}
    both = NestedLoss((2, 4), lambda bits: LOSSES["csq"].for_training(bits, training[bits]), "uniform")
    with pytest.raises(ValueError, match="for different numbers of classes"):
        both(general(2, 4), torch.tensor([0, 1]), torch.arange(2))


# labels alone


def test_class_indices_make_columns_up_to_the_largest_where_classes_are_not_known() -> None:
    assert multi_hot(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert multi_hot(torch.tensor([2, 0]), 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert multi_hot(torch.tensor([], dtype=torch.int64)).shape == (0, 1)
    with pytest.raises(ValueError, match="class indices must be 0 to 99999, but contain 1000000000"):
        multi_hot(torch.tensor([0, 1_000_000_000]))


def test_who_shares_a_label_is_public_and_takes_multi_hot_labels_alone() -> None:
    targets = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert shares_label(targets).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert shares_label(targets[:1], targets).tolist() == [[1, 0, 1, 0]]
    for wrong in (LABELS, LABELS[:, None], ONE_HOT.bool()):
        with pytest.raises(ValueError, match=r"targets must be floating-point multi-hot labels \(B, C\), not torch"):
            shares_label(wrong)


# memories

QUIET: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "eval": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@every_loss
@every_way
@pytest.mark.parametrize("mode", QUIET)
def test_what_is_not_learned_from_is_not_remembered_and_costs_the_same(name: str, way: Any, mode: str) -> None:
    loss, call = way(name)
    call(outputs(5), LABELS[BATCH], BATCH, anchors())  # so that there is something to lose
    before = {key: kept.clone() for key, kept in loss.state_dict().items()}
    if mode == "eval":
        call.eval()  # type: ignore[attr-defined]
    with QUIET[mode]():
        value = call(outputs(), LABELS[BATCH], BATCH, anchors())
    assert all(torch.equal(kept, before[key]) for key, kept in loss.state_dict().items())
    call.train()  # type: ignore[attr-defined]
    learned = call(outputs(), LABELS[BATCH], BATCH, anchors())
    assert torch.equal(value.clone(), learned.detach())
    changed = {key for key, kept in loss.state_dict().items() if not torch.equal(kept, before[key])}
    assert changed == ({"memory"} if name in REMEMBERS else set())


# what a loss's `terms` may return


class Returns(HashLoss):
    """A loss whose `terms` gives back what it is made with."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> Any:  # noqa: ARG002
        return self.result(h)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda h: h.sum(), r'Returns.terms must return a dict .* \{"term": value\}, not a tensor \(\)$'),
        (lambda h: [h.sum()], "Returns.terms must return a dict .* not a list"),
        (lambda h: None, "Returns.terms must return a dict .* not a NoneType"),  # noqa: ARG005
        (lambda h: {}, "Returns.terms must return at least one term"),  # noqa: ARG005
        (lambda h: {1: h.sum()}, "Returns.terms must name its terms by strings, not 1"),
        (lambda h: {"a": h.sum(dim=1)}, r"Returns.terms: 'a' must be a scalar tensor, not of shape \(5,\)"),
        (lambda h: {"a": h.sum(), "b": 3.0}, "Returns.terms: 'b' must be a scalar tensor, not a float"),
    ],
)
def test_terms_that_are_no_dict_of_scalars_are_told(result: Callable[[Tensor], Any], said: str) -> None:
    loss = Returns(result)
    for call in (loss, WithHSWD(loss), NestedLoss((BITS,), lambda bits: loss)):  # noqa: ARG005
        with pytest.raises(TermsError, match=said):
            call(outputs(), LABELS[BATCH], BATCH)


def test_the_nested_losss_own_term_is_not_overwritten() -> None:
    loss = Returns(lambda h: {"distillation": h.sum()})
    assert torch.isfinite(loss(outputs(), LABELS[BATCH], BATCH))
    with pytest.raises(TermsError, match="rename 'distillation', the nested loss uses it"):
        NestedLoss((BITS,), lambda bits: loss)(outputs(), LABELS[BATCH], BATCH)  # noqa: ARG005
