"""A setting without effect is refused where a user gives it, and left out where a shipped file or a run's does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nestkala.training.run
from nestkala.cli import train_main
from nestkala.losses import TrainingSet
from nestkala.plugins import OWN, plugins
from nestkala.settings.applicable import LOSSES_WITH_ANCHORS, LOSSES_WITH_CENTERS, inapplicable
from nestkala.settings.config import Base, Config
from nestkala.settings.files import shipped_files
from nestkala.settings.loading import dump_config, load_config
from nestkala.utils.errors import NestKALAError

RANDOM = {"head_init": "random"}
TRAINED = {"epochs": 1}
WITHOUT_EFFECT: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("alpha", 50.0, {**RANDOM, "loss": "dsh"}, {"loss": "kiddo"}),
    ("alpha", 0.1, {**RANDOM, "loss": "dsh"}, {"loss": "kiddo-hswd"}),  # its default, but not dsh's
    ("beta", 2.0, {**RANDOM, "loss": "dpsh"}, {"loss": "kiddo"}),
    ("gamma", 2.0, {**RANDOM, "loss": "dch-hswd"}, {"loss": "kiddo"}),
    ("loss_args", {"alpha": 50.0}, {**RANDOM, "loss": "kiddo"}, {"loss": "dsh"}),
    ("loss_args", {"gamma": 50.0}, {**RANDOM, "loss": "kiddo-hswd"}, {"loss": "dch"}),
    ("centers", "nested", {**RANDOM, "loss": "dpsh"}, {"loss": "csq"}),
    ("loss", "csq", {}, TRAINED),
    ("loss", "kiddo", {}, RANDOM),
    ("alpha", 0.1, {}, TRAINED),
    ("loss_args", {"margin": 1.0}, {}, TRAINED | {"loss": "dsh"}),
    ("weighting", "halving", {}, TRAINED),
    ("weighting", "adaptive", {**TRAINED, "lengths": (8,)}, {"lengths": (8, 16)}),
    ("distillation", 0.5, {}, TRAINED),
    ("distillation", 0.5, {**TRAINED, "lengths": (8,)}, {"lengths": (8, 16)}),
    ("batch_size", 4, {}, TRAINED),
    ("lr", 0.1, {}, TRAINED),
    ("momentum", 0.5, {}, TRAINED),
    ("lr_drops", (3,), {}, TRAINED),
    ("class_words", {"a": "b"}, {**RANDOM, "anchors": "orthonormal"}, {"anchors": "text"}),
    ("class_words", {"a": "b"}, {"descriptions": Path("said.yaml")}, {"descriptions": None}),
    ("weight_decay", 0.5, {}, TRAINED),
    ("max_grad_norm", 5.0, {}, TRAINED),
    ("checkpoint_every", 5, {}, TRAINED),
    ("tracker", "tensorboard", {}, TRAINED),
    ("adapter", "full", {}, TRAINED),
    ("epochs", 5, {"shots": 0}, {"shots": 1}),
    ("lr", 0.5, {"data": "none", "archive": Path("a"), "classes": "b,c"}, {**TRAINED, "data": "photos"}),
    ("train_pool", 50, {"shots": 0}, {"shots": 1}),
    ("adapt_blocks", 2, TRAINED, {"adapter": "biases"}),
    ("projections", ("q",), {**TRAINED, "adapter": "full"}, {"adapter": "lora"}),
    ("projections", ("q",), {**TRAINED, "adapter": "lora", "backbone": "photo"}, {"backbone": "tiny"}),
    ("projections", ("q",), {**TRAINED, "adapter": "lora", "backbone": "photo:lite2"}, {"backbone": "tiny"}),
    ("rank", 1, {**RANDOM, "adapter": "none"}, {"adapter": "clora"}),
    ("rank", 4, TRAINED, {"adapter": "lora"}),
    ("adapter_scale", 0.5, {**RANDOM, "adapter": "prompts"}, {"adapter": "lora"}),
    ("adapter_init", "zero", {**RANDOM, "adapter": "lora"}, {"adapter": "clora"}),
    ("prompt_length", 4, RANDOM, {"adapter": "prompts"}),
    ("batch_norm", True, {}, RANDOM),
    ("unlabeled", 50, RANDOM, {"head_init": "labels"}),
    ("class_bits", 5, RANDOM, {"head_init": "labels"}),
    ("unnamed_kinds", 5, RANDOM, {"head_init": "labels"}),
    ("shots", 4, {"split": Path("s.json")}, {"split": None}),
    ("queries", 4, {"split": Path("s.json")}, {"split": None}),
    ("queries_per_class", 4, {"split": Path("s.json")}, {"split": None}),
    ("train_pool", 40, {"split": Path("s.json")}, {"split": None}),
    ("prompts", ("a {}",), {**RANDOM, "anchors": "orthonormal"}, {"anchors": "text"}),
    ("prompts", ("a {}",), {**RANDOM, "anchors": "a.npy"}, {"anchors": "tiny"}),
    ("prompts", ("a {}",), {"descriptions": Path("said.yaml")}, {"descriptions": None}),
    ("prompts", ("a {}",), {**RANDOM, "loss": "dsh", "adapter": "none"}, {"adapter": "clora"}),
    ("prompts", ("a {}",), {**RANDOM, "loss": "dsh", "adapter": "lora"}, {"loss": "kiddo"}),
    ("descriptions", Path("said.yaml"), {**RANDOM, "anchors": "orthonormal"}, {"anchors": "tiny"}),
    ("descriptions", Path("said.yaml"), {**RANDOM, "loss": "dsh", "adapter": "full"}, {"adapter": "clora"}),
    ("data_root", Path("elsewhere"), {"data": "photos"}, {"data": "cifar10"}),
    ("top_k", 50, {"queries": 0}, {"queries": 5}),
    ("score_features", True, {"data": "none", "archive": Path("a"), "classes": "b,c"}, {"data": "photos"}),
]
"""A setting and its value, what it has no effect beside, and what mends that."""


@pytest.mark.parametrize(("key", "value", "beside", "mended"), WITHOUT_EFFECT)
def test_what_has_no_effect_is_refused_by_name(
    key: str, value: object, beside: dict[str, Any], mended: dict[str, Any]
) -> None:
    Config(**beside)
    with pytest.raises(NestKALAError) as caught:
        Config(**beside, **{key: value})
    said = str(caught.value)
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    assert f"{key} {shown} has no effect: " in said
    assert "\n" not in said
    assert getattr(Config(**beside | mended, **{key: value}), key) == value


@pytest.mark.parametrize(
    "given",
    [
        {"adapter": "none", "weighting": "uniform", "distillation": 0, "epochs": 0, "max_grad_norm": 0},
        {"batch_norm": False, "tracker": "none", "loss_args": {}, "lr": None, "class_bits": None},
        {"adapter": "auto", "weighting": "auto", "head_init": "auto"},
        {"lengths": (8,), "weighting": "uniform", "distillation": 0.0, **TRAINED},
    ],
)
def test_that_something_is_not_done_may_be_said_where_it_cannot_be(given: dict[str, Any]) -> None:
    Config(**given)


def test_which_losses_ask_for_centers_and_anchors() -> None:
    asked = []

    def centers(bits: int) -> torch.Tensor:
        asked.append(bits)
        return torch.ones(3, bits)

    training = TrainingSet(torch.eye(3), torch.ones(3, 8), centers)
    found: dict[str, list[str]] = {"centers": [], "anchors": []}
    for name in OWN["losses"]:
        loss = plugins("losses")[name].load()
        loss.for_training(8, training)
        found["centers"] += [name] if asked else []
        found["anchors"] += [name] if loss.uses_anchors else []
        asked.clear()
    assert found == {"centers": sorted(LOSSES_WITH_CENTERS), "anchors": sorted(LOSSES_WITH_ANCHORS)}


def test_of_settings_with_one_reason_the_reason_is_told_once() -> None:
    with pytest.raises(NestKALAError) as caught:
        Config(**RANDOM, loss="dsh", alpha=1.0, gamma=2.0, data_root=Path("x"))
    said = str(caught.value)
    assert said.startswith("alpha 1.0, gamma 2.0 have no effect: only for loss kiddo, but the loss is dsh")
    assert said.count("loss kiddo") == 1
    assert "; data_root x has no effect: " in said


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Config | str]:
    """What a command line is taken for, or the error that it gives."""
    seen: list[Config] = []
    monkeypatch.setattr(nestkala.training.run, "train", seen.append)

    def parse(*args: object) -> Config | str:
        code = train_main([str(arg) for arg in args])
        error = capsys.readouterr().err
        assert (code, error.count("\n")) == ((0, 0) if seen else (2, 1))
        return seen.pop() if seen else error

    return parse


def test_a_flag_is_refused_even_where_it_says_the_default(parsed: Callable[..., Config | str]) -> None:
    for flag in (["--alpha", "0.1"], ["--alpha=0.1"]):
        assert "alpha 0.1 has no effect" in str(parsed("--loss", "dsh", "--head-init", "random", *flag))
    assert "batch_norm True has no effect" in str(parsed("--batch-norm"))
    assert "loss kiddo has no effect" in str(parsed("--loss", "kiddo"))
    config = parsed("--no-batch-norm", "--adapter", "none", "--distillation", "0")
    assert isinstance(config, Config)


def test_what_a_shipped_config_says_is_left_out_where_it_has_no_effect(parsed: Callable[..., Config | str]) -> None:
    frozen = parsed("--config", "kalahash", "--adapter", "none", "--loss", "dpsh")
    assert isinstance(frozen, Config)
    assert load_config("kalahash").model_fields_set - frozen.model_fields_set == {
        *("adapter_init", "adapter_scale", "rank"),  # CLoRA's
        *("alpha", "beta", "gamma", "class_words"),  # KIDDO's, whose anchors nothing else takes
    }
    untrained = parsed("--config", "mah", "--head", "nested", "--head-init", "text", "--epochs", "0", "--shots", "4")
    assert isinstance(untrained, Config)
    assert (untrained.loss, untrained.batch_size, untrained.weighting) == ("kiddo", 8, "auto")
    assert "adapter_init zero has no effect" in str(
        parsed("--config", "kalahash", "--adapter", "none", "--adapter-init", "zero")
    )
    assert "adapter_init linear has no effect" in str(  # as the file has it, but asked for
        parsed("--config", "kalahash", "--adapter", "none", "--adapter-init", "linear")
    )


@pytest.mark.parametrize("name", shipped_files("nestkala.configs"))
def test_all_of_a_shipped_config_has_an_effect(name: str) -> None:
    assert not inapplicable(load_config(name))


def test_what_an_own_file_says_is_refused_unless_flags_give_it_an_effect(
    tmp_path: Path, parsed: Callable[..., Config | str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("rank: 1\n")
    assert "rank 1 has no effect" in str(parsed("--config", own))
    with pytest.raises(NestKALAError, match=r"own\.yaml: rank 1 has no effect"):
        load_config(str(own))
    trained = parsed("--config", own, "--head-init", "random")
    assert isinstance(trained, Config)
    assert trained.rank == 1
    own.write_text("alpha: 0.1\nhead_init: random\n")
    assert isinstance(parsed("--config", own), Config)
    assert "alpha 0.1 has no effect" in str(parsed("--config", own, "--loss", "dsh"))


def test_the_settings_of_a_run_are_read_whatever_they_hold(tmp_path: Path, parsed: Callable[..., Config | str]) -> None:
    """Runs write all settings; earlier versions also wrote what they had ignored."""
    ignored = {"loss": "dsh", "alpha": 50.0, "rank": 3, "adapter": "none", "loss_args": {"margin": 2.0}}
    written = tmp_path / "config.yaml"
    written.write_text(dump_config(Base(**RANDOM, **ignored)))
    config = load_config(str(written))
    assert (config.loss, config.loss_args, config.alpha, config.rank) == ("dsh", {"margin": 2.0}, 0.1, 1)
    for base in (["--resume", tmp_path], ["--config", written]):
        assert isinstance(parsed(*base), Config)
        assert isinstance(parsed(*base, "--epochs", "7"), Config)
        assert "alpha 50.0 has no effect" in str(parsed(*base, "--alpha", "50"))
    assert "--resume continues with loss dsh, not kiddo" in str(parsed("--resume", tmp_path, "--loss", "kiddo"))
    again = parsed("--config", written, "--loss", "kiddo")
    assert isinstance(again, Config)
    assert (again.loss, again.loss_args, again.alpha) == ("kiddo", {}, 50.0)  # margin was of the other loss
