"""From settings to the objective of a run."""

from inspect import Parameter, signature

import pytest
import torch

from nestkala.heads import NestedHashHead
from nestkala.losses import (
    CSQ,
    GreedyHash,
    NestedLoss,
    TrainingSet,
    WithHSWD,
    minimum_distance,
    nested_centers,
    random_codes,
)
from nestkala.plugins import OWN, plugins
from nestkala.settings.config import Config
from nestkala.training.objective import make_loss
from nestkala.utils.errors import NestKALAError

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
    nested, other = make_loss(config, HEAD, TARGETS, seed=0), make_loss(config, HEAD, TARGETS, seed=0)
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
        assert torch.isfinite(one_step(make_loss(Config(loss=name, **RANDOM), HEAD, SEVERAL, seed=0), SEVERAL)[1]).all()
    else:
        with pytest.raises(NestKALAError, match=f"loss {name} needs images with exactly one class each"):
            make_loss(Config(loss=name, **RANDOM), HEAD, SEVERAL, seed=0)


def test_centers_are_prefixes_or_drawn_for_each_length() -> None:
    def centers(**settings: str) -> list[torch.Tensor]:
        nested = make_loss(Config(loss="csq", **RANDOM, **settings), HEAD, TARGETS, seed=0)
        assert all(isinstance(loss, CSQ) for loss in nested.losses)
        return [loss.centers for loss in nested.losses]

    short, middle, long = centers()
    assert torch.equal(long[:, :8], middle)
    assert torch.equal(long[:, :3], short)
    assert torch.equal(long, nested_centers(CLASSES, 16, torch.Generator().manual_seed(0)))
    short, middle, long = centers(centers="independent")
    assert not torch.equal(long[:, :8], middle)
    assert minimum_distance(long) >= 8  # rows of a Hadamard matrix


def test_where_the_head_started_is_where_the_loss_pulls() -> None:
    started = nested_centers(CLASSES, 16, torch.Generator().manual_seed(9))
    nested = make_loss(Config(loss="csq", lengths=LENGTHS, epochs=1), HEAD, TARGETS, seed=0, centers=started)
    assert torch.equal(nested.losses[-1].centers, started)


def test_arguments_reach_the_loss() -> None:
    nested = make_loss(Config(loss="dsh-hswd", loss_args={"margin": 0.7}, **RANDOM), HEAD, TARGETS, seed=0)
    assert all(isinstance(loss, WithHSWD) and loss.base.margin == 0.7 for loss in nested.losses)


def test_an_unknown_argument_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        NestKALAError, match=r"argument of loss dpsh 'quantizaton'; did you mean 'quantization'\? \(known: quan"
    ):
        make_loss(Config(loss="dpsh", loss_args={"quantizaton": 0.7}, **RANDOM), HEAD, TARGETS, seed=0)


@pytest.mark.parametrize(("loss", "former"), [("dpsh", "eta"), ("dsdh", "eta"), ("dsh", "alpha"), ("adsh", "gamma")])
def test_a_former_name_of_an_argument_is_refused_with_the_present_one(loss: str, former: str) -> None:
    with pytest.raises(NestKALAError, match=f"^{former} of loss {loss} is now called quantization$"):
        make_loss(Config(loss=loss, loss_args={former: 0.7}, **RANDOM), HEAD, TARGETS, seed=0)
    kind = plugins("losses")[loss].load()
    with pytest.raises(TypeError, match=f"^{kind.__name__}: argument {former} is now called quantization$"):
        kind(**{former: 0.7})


def test_the_quantization_of_kiddo_has_a_flag() -> None:
    with pytest.raises(NestKALAError, match="quantization of loss kiddo is set by its own flag, --beta"):
        make_loss(Config(loss="kiddo", loss_args={"quantization": 0.7}, **RANDOM), HEAD, TARGETS, seed=0)


def test_a_classifier_of_the_loss_is_among_what_is_trained() -> None:
    nested = make_loss(Config(loss="greedyhash", **RANDOM), HEAD, TARGETS, seed=0)
    assert all(isinstance(loss, GreedyHash) for loss in nested.losses)
    assert {tuple(parameter.shape) for parameter in nested.parameters()} >= {(CLASSES, 3), (CLASSES, 16)}


def test_independent_centers_do_not_fit_a_start_from_text() -> None:
    with pytest.raises(NestKALAError, match="needs a random start"):
        Config(centers="independent")


OPTIONS = [
    (name, option, parameter.default)
    for name in OWN["losses"]
    for option, parameter in signature(plugins("losses")[name].load()).parameters.items()
    if parameter.default is not Parameter.empty and name != "kiddo" and option != "sweeps"
]
"""Of losses whose arguments are given by loss_args; one sweep is enough for so few images."""


def course(name: str, options: dict[str, float]) -> list[torch.Tensor]:
    """All that training by a loss with HSWD depends on, for two epochs on the same codes."""
    generator = torch.Generator().manual_seed(0)
    training = TrainingSet(TARGETS, random_codes(len(TARGETS), 8, generator), lambda bits: torch.ones(CLASSES, bits))
    loss = WithHSWD(plugins("losses")[name].load().for_training(8, training, **options))
    found = []
    for epoch in range(2):
        torch.manual_seed(0)  # HSWD draws directions
        indices = torch.arange(len(TARGETS))
        h = (torch.rand(len(TARGETS), 8, generator=generator) * 2 - 1).requires_grad_()
        terms = loss.terms(h, TARGETS, indices)
        found += [*torch.autograd.grad(sum(terms.values()), h), loss.sample(epoch)]
        loss.end_epoch()
        found += [value.clone() for value in loss.state_dict().values()]
    return [value for value in found if value is not None]


@pytest.mark.parametrize(("name", "option", "default"), OPTIONS)
def test_an_argument_that_hswd_leaves_without_effect_is_refused(name: str, option: str, default: float | None) -> None:
    few = {"queries": 4.0, "round_epochs": 1.0} if name == "adsh" else {}  # or its first round would be all
    value = {"queries": 3.0, "round_epochs": 2.0, "continuation": 1.0}.get(option)
    if value is None:
        value = 0.7 if default is None else 2 * default + 1
    one, other = course(name, few), course(name, few | {option: value})
    alike = all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))
    config = Config(loss=f"{name}-hswd", loss_args={option: value}, **RANDOM)
    if alike:
        with pytest.raises(NestKALAError, match=f"{option} of loss {name} has no effect"):
            make_loss(config, HEAD, TARGETS, seed=0)
    else:
        make_loss(config, HEAD, TARGETS, seed=0)
    make_loss(Config(loss=name, loss_args={option: value}, **RANDOM), HEAD, TARGETS, seed=0)
