"""From settings to the objective of a run."""

import pytest
import torch

from nestkala.config import Config
from nestkala.errors import NestKALAError
from nestkala.heads import NestedHashHead
from nestkala.losses import CSQ, GreedyHash, NestedLoss, WithHSWD, minimum_distance, nested_centres
from nestkala.objective import make_loss
from nestkala.plugins import plugins

CLASSES, NUM, LENGTHS = 5, 12, (3, 8, 16)
TARGETS = torch.eye(CLASSES)[torch.arange(NUM) % CLASSES]
SEVERAL = TARGETS.clone().index_fill_(1, torch.tensor([2]), 1)
RANDOM = {"head_init": "random", "lengths": LENGTHS}
HEAD = NestedHashHead(7, LENGTHS)
NAMES = list(plugins("losses"))


def one_step(nested: NestedLoss, targets: torch.Tensor) -> tuple[float, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(LENGTHS[-1], 7, generator=generator).requires_grad_()
    h = torch.tanh(torch.randn(6, 7, generator=generator) @ weight.T)
    value = nested(h, targets[:6], torch.arange(6), torch.randn(CLASSES, LENGTHS[-1], generator=generator), weight)
    value.backward()
    nested.end_epoch(torch.randn(CLASSES, LENGTHS[-1], generator=generator))
    return value.item(), weight.grad


@pytest.mark.parametrize("suffix", ["", "-hswd"])
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_nests_learns_and_goes_on_from_its_state(name: str, suffix: str) -> None:
    config = Config(loss=name + suffix, **RANDOM)
    nested, other = make_loss(config, HEAD, TARGETS), make_loss(config, HEAD, TARGETS)
    value, gradient = one_step(nested, TARGETS)
    assert torch.isfinite(torch.tensor(value))
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    other.load_state_dict({key: tensor.clone() for key, tensor in nested.state_dict().items()})
    (first, its), (second, others) = one_step(nested, TARGETS), one_step(other, TARGETS)
    assert first == second
    assert torch.equal(its, others)


@pytest.mark.parametrize("name", NAMES)
def test_several_labels_are_taken_or_refused_as_the_loss_says(name: str) -> None:
    if plugins("losses")[name].load().multi_label:
        assert torch.isfinite(one_step(make_loss(Config(loss=name, **RANDOM), HEAD, SEVERAL), SEVERAL)[1]).all()
    else:
        with pytest.raises(NestKALAError, match=f"loss {name} needs images of exactly one class each"):
            make_loss(Config(loss=name, **RANDOM), HEAD, SEVERAL)


def test_centres_are_prefixes_or_drawn_for_each_length() -> None:
    def centres(**settings: str) -> list[torch.Tensor]:
        nested = make_loss(Config(loss="csq", **RANDOM, **settings), HEAD, TARGETS)
        assert all(isinstance(loss, CSQ) for loss in nested.losses)
        return [loss.centres for loss in nested.losses]

    short, middle, long = centres()
    assert torch.equal(long[:, :8], middle)
    assert torch.equal(long[:, :3], short)
    assert torch.equal(long, nested_centres(CLASSES, 16, torch.Generator().manual_seed(0)))
    short, middle, long = centres(centres="independent")
    assert not torch.equal(long[:, :8], middle)
    assert minimum_distance(long) >= 8  # rows of a Hadamard matrix


def test_where_the_head_started_is_where_the_loss_pulls() -> None:
    started = nested_centres(CLASSES, 16, torch.Generator().manual_seed(9))
    nested = make_loss(Config(loss="csq", lengths=LENGTHS, epochs=1), HEAD, TARGETS, started)
    assert torch.equal(nested.losses[-1].centres, started)


def test_arguments_reach_the_loss() -> None:
    nested = make_loss(Config(loss="dpsh-hswd", loss_args={"eta": 0.7}, **RANDOM), HEAD, TARGETS)
    assert all(isinstance(loss, WithHSWD) and loss.base.eta == 0.7 for loss in nested.losses)


def test_an_unknown_argument_is_answered_with_the_nearest() -> None:
    with pytest.raises(NestKALAError, match=r"unknown argument of loss dpsh 'etta'; did you mean 'eta'\? \(known: eta"):
        make_loss(Config(loss="dpsh", loss_args={"etta": 0.7}, **RANDOM), HEAD, TARGETS)


def test_a_classifier_of_the_loss_is_among_what_is_trained() -> None:
    nested = make_loss(Config(loss="greedyhash", **RANDOM), HEAD, TARGETS)
    assert all(isinstance(loss, GreedyHash) for loss in nested.losses)
    assert {tuple(parameter.shape) for parameter in nested.parameters()} >= {(CLASSES, 3), (CLASSES, 16)}


def test_independent_centres_do_not_fit_a_start_from_text() -> None:
    with pytest.raises(NestKALAError, match="needs a random start"):
        Config(centres="independent")
