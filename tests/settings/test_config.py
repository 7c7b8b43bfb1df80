"""Settings: where each value comes from, what is refused and in which words, and what the shipped files say."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml
from tyro.conf import OmitArgPrefixes

import nestkala.training.run
from nestkala.cli import main, train_main
from nestkala.data import cifar10
from nestkala.losses import ADSH
from nestkala.settings.checks import check_files, check_resumable
from nestkala.settings.config import Config, without_inapplicable
from nestkala.settings.flags import FIRST, Train, base_config, given, with_flags
from nestkala.settings.groups import GROUPS, HeadSettings
from nestkala.settings.loading import dump_config, load_config
from nestkala.training.anchors import class_sentences
from nestkala.utils.errors import NestKALAError

SHIPPED = ("cifar10", "digits", "kalahash", "mah", "mscoco", "nuswide21")

CHANGED: dict[str, Any] = {
    "config": "mine.yaml",
    "output": Path("runs/mine"),
    "resume": Path("runs/earlier"),
    "seed": 3,
    "lengths": (5, 48),
    "head": "flat",
    "batch_norm": False,
    "head_init": "random",
    "class_bits": 12,
    "unnamed_kinds": 7,
    "unlabeled": 50,
    "data": "0",
    "archive": Path("photos"),
    "classes": "hot dog,größer",
    "data_root": Path("/elsewhere"),
    "shots": 4,
    "split": Path("split.json"),
    "queries_per_class": 7,
    "queries": 11,
    "gallery": "labeled",
    "train_pool": 13,
    "protocol_seed": 2,
    "top_k": 17,
    "on_broken": "skip",
    "backbone": "timm/vit_tiny_patch16_224",
    "anchors": "text/anchors.npy",
    "prompts": ("ein Foto: {}", "größer, „{}“"),
    "class_words": {"automobile": "car", "größer": "bigger: a"},
    "descriptions": Path("said.json"),
    "adapter": "none",
    "adapt_blocks": 2,
    "projections": ("q", "o"),
    "rank": 2,
    "prompt_length": 3,
    "adapter_scale": -0.5,
    "adapter_init": "zero",
    "loss": "dpsh",
    "loss_args": {"eta": 0.5, "größer": 2.0},
    "centers": "independent",
    "alpha": 1e-7,
    "beta": 0.0,
    "gamma": 1 / 3,
    "weighting": "uniform",
    "distillation": 0.25,
    "epochs": 9,
    "batch_size": 1,
    "lr": 2.5e-4,
    "lr_drops": (3, 8),
    "momentum": 0.0,
    "weight_decay": 1e-3,
    "max_grad_norm": 2.5,
    "score_features": True,
    "checkpoint_every": 3,
    "tracker": "tensorboard",
    "precision": "bf16",
    "threads": 1,
    "workers": 0,
    "backend": "onnx",
    "encode_batch_size": 19,
    "cache": Path("/tmp/some cache"),
    "cache_gb": 0.5,
}
"""Every setting, each with another value than its default."""


def in_effect(**changes: Any) -> Config:
    """The changed settings, and these, less those that have no effect beside the others."""
    values = {key: value for key, value in (CHANGED | changes).items() if value is not None}
    return without_inapplicable(values, values.keys())


CLOSED_FORM = {
    "queries_per_class": None,
    "head": "nested",
    "head_init": "labels",
    "centers": "nested",
    "gallery": "all",
}
RANDOM_START = {"queries": None, "archive": None, "class_bits": None}
TOGETHER = [
    in_effect(**RANDOM_START),
    in_effect(**RANDOM_START, split=None, loss="csq", data="cifar10"),
    in_effect(**RANDOM_START, split=None, adapter="prompts", loss="kiddo", anchors="tiny", descriptions=None),
    in_effect(**RANDOM_START, split=None, adapter="clora", anchors="tiny"),
    in_effect(**RANDOM_START, batch_norm=True, batch_size=9),
    in_effect(**CLOSED_FORM, shots="all"),
    in_effect(**CLOSED_FORM, shots="all", split=None),
]
"""Every setting is in effect in one of them."""


@pytest.fixture
def yaml_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    seen: list[Config] = []
    monkeypatch.setattr(nestkala.training.run, "train", seen.append)

    def parse(*args: object, entry: Callable[[list[str]], int] = train_main) -> Config:
        assert entry([str(arg) for arg in args]) == 0
        return seen.pop()

    return parse


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(NestKALAError) as caught:
        act()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_every_setting_is_among_the_changed_ones() -> None:
    assert CHANGED.keys() == Config.model_fields.keys()
    assert not [key for key in CHANGED if CHANGED[key] == getattr(Config(), key)]


def test_flags_win_over_the_file_which_wins_over_defaults(
    yaml_file: Callable[[str], Path], parsed: Callable[..., Config]
) -> None:
    path = yaml_file("lengths: [24, 6]\nseed: 5\nprompts: ['a {}', 'the {}']\n")
    random = ("--head-init", "random")
    config = parsed("--config", path, "--seed", 7, "--projections", "q,k", "--no-batch-norm", *random)
    assert (config.lengths, config.prompts) == ((6, 24), ("a {}", "the {}"))
    assert (config.seed, config.projections, config.batch_norm) == (7, ("q", "k"), False)
    assert (config.epochs, config.gamma, config.config) == (None, 3.0, str(path))


def test_without_a_config_the_shipped_digits_are_the_base(parsed: Callable[..., Config]) -> None:
    assert parsed() == load_config("digits")


def test_what_is_set_for_digits_is_not_taken_for_other_data(parsed: Callable[..., Config]) -> None:
    assert parsed("--data", "photos") == parsed("--data=photos") == Config(data="photos")
    assert parsed("train", "--data", "photos", entry=main) == Config(data="photos")
    assert parsed("--data", "digits") == load_config("digits") != Config()
    assert (
        parsed("--config", "cifar10", "--data", "photos").queries_per_class == load_config("cifar10").queries_per_class
    )


def test_both_entry_points_read_the_same_flags(parsed: Callable[..., Config]) -> None:
    flags = ("--config=cifar10", "--lengths", "64,16", "--shots", 4)
    assert parsed("train", *flags, entry=main) == parsed(*flags)
    assert parsed(*flags).model_dump() == load_config("cifar10").model_dump() | {"lengths": (16, 64), "shots": 4}


@pytest.mark.parametrize(("given", "kept"), [("32,8,32,16,8", (8, 16, 32)), ("512,1", (1, 512)), ("7", (7,))])
def test_lengths_are_sorted_and_each_is_there_once(
    given: str, kept: tuple[int, ...], parsed: Callable[..., Config], yaml_file: Callable[[str], Path]
) -> None:
    assert parsed("--lengths", given).lengths == kept
    assert Config(lengths=[int(b) for b in given.split(",")]).lengths == kept
    assert load_config(str(yaml_file(f"lengths: [{given}]"))).lengths == kept


def test_every_length_up_to_512_is_possible() -> None:
    assert Config(lengths=list(range(512, 0, -1))).lengths == tuple(range(1, 513))


@pytest.mark.parametrize("lengths", ["[16, 32.0, 8]", "['16', '8', '32']", "[32, 16, '8']"])
def test_lengths_are_never_left_unsorted(lengths: str, yaml_file: Callable[[str], Path]) -> None:
    with contextlib.suppress(NestKALAError):
        assert load_config(str(yaml_file(f"lengths: {lengths}"))).lengths == (8, 16, 32)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lengths: [0, 8]", "lengths", "[0, 8]"),
        ("backbone: tiny:openai", "tiny", "openai"),
        ("backbone: timm/vit_tiny_patch16_224", "anchors", "timm/vit_tiny_patch16_224"),
        ("{queries: 5, queries_per_class: 2}", "queries", "queries_per_class"),
        ("lengths: [8, 513]", "lengths", "[8, 513]"),
        ("lengths: [-4]", "lengths", "-4"),
        ("lengths: []", "lengths", "[]"),
        ("lengths: 8", "lengths", "8"),
        ("lengths: [8.5]", "lengths", "8.5"),
        ("lengths: [true]", "lengths", "True"),
        ("lengths: null", "lengths", "None"),
        ("seed: -1", "seed", "-1"),
        ("seed: 2147483648", "seed", "2147483648"),
        ("shots: -1", "shots", "-1"),
        ("{shots: 0, head_init: random}", "shots", "0"),
        ("head_init: txt", "head_init", "'txt'"),
        ("{head_init: text, anchors: orthonormal}", "head_init", "orthonormal"),
        ("{head_init: labels, shots: 0}", "shots", "0"),
        ("{head_init: labels, head: flat}", "head_init", "flat"),
        ("{head_init: labels, centers: independent}", "centers", "independent"),
        ("class_bits: 0", "class_bits", "0"),
        ("class_bits: 513", "class_bits", "513"),
        ("class_bits: 8.5", "class_bits", "8.5"),
        ("{class_bits: 8, head_init: random}", "class_bits", "head_init"),
        ("{class_bits: 8, anchors: orthonormal}", "class_bits", "head_init"),
        ("unlabeled: 1", "unlabeled", "1"),
        ("shots: many", "shots", "'many'"),
        ("epochs: [1]", "epochs", "[1]"),
        ("epochs: -1", "epochs", "-1"),
        ("{epochs: 0, head_init: random}", "epochs", "0"),
        ("lr: .nan", "lr", "nan"),
        ("lr: .inf", "lr", "inf"),
        ("lr: 0", "lr", "0"),
        ("lr: -0.1", "lr", "-0.1"),
        ("lr_drops: [5, 5]", "lr_drops", "[5, 5]"),
        ("lr_drops: [5, 3]", "lr_drops", "[5, 3]"),
        ("lr_drops: [0]", "lr_drops", "[0]"),
        ("lr_drops: [2.5]", "lr_drops", "2.5"),
        ("class_words: {cat: 3}", "class_words", "3"),
        ("momentum: .nan", "momentum", "nan"),
        ("momentum: 1", "momentum", "1"),
        ("adapter_scale: .nan", "adapter_scale", "nan"),
        ("gamma: -3", "gamma", "-3"),
        ("weight_decay: .inf", "weight_decay", "inf"),
        ("max_grad_norm: -1", "max_grad_norm", "-1"),
        ("max_grad_norm: .inf", "max_grad_norm", "inf"),
        ("cache_gb: -1", "cache_gb", "-1"),
        ("distillation: a lot", "distillation", "'a lot'"),
        ("batch_norm: maybe", "batch_norm", "'maybe'"),
        ("{batch_size: 1, head_init: random}", "batch_size", "1"),
        ("prompts: []", "prompts", "[]"),
        ("prompts: [a photo]", "prompts", "a photo"),
        ("prompts: 'a {}'", "prompts", "a {}"),
        ("projections: []", "projections", "[]"),
        ("projections: [k, k]", "projections", "k"),
        ("projections: [k, z]", "projections", "'z'"),
        ("loss: kido", "loss", "'kido'"),
        ("precision: fp8", "precision", "'fp8'"),
        ("data: 5", "data", "5"),
        ("cache: 5", "cache", "5"),
        ("backbone: resnet", "backbone", "'resnet'"),
        ("backbone: open_clip/ViT-B-33:openai", "open_clip ViT", "'ViT-B-33'; did you mean 'ViT-B-32'"),
        ("backbone: open_clip/ViT-B-32", "weights", "open_clip/ViT-B-32"),
        ("anchors: orthonorml", "anchors", "'orthonorml'; did you mean 'orthonormal'"),
        ("anchors: timm/vit_tiny_patch16_224:random", "anchors", "timm/vit_tiny_patch16_224:random"),
    ],
)
def test_an_impossible_value_is_refused_by_file_key_and_value(
    text: str, key: str, value: str, yaml_file: Callable[[str], Path]
) -> None:
    path = yaml_file(text)
    message = refusal(lambda: load_config(str(path)))
    assert message.startswith(f"{path}: ")
    said = message.removeprefix(f"{path}: ")
    assert re.search(rf"\b{re.escape(key)}\b", said)
    assert value in said


def test_all_impossible_values_are_told_at_once(yaml_file: Callable[[str], Path]) -> None:
    message = refusal(lambda: load_config(str(yaml_file("lr: .nan\nepochs: -1\nshots: few"))))
    for key in ("lr", "epochs", "shots"):
        assert key in message


def test_a_setting_of_that_name_is_unknown_to_code_too() -> None:
    assert "'lenghts'; did you mean 'lengths'?" in refusal(lambda: Config(lenghts=[8]))


@pytest.mark.parametrize(
    ("key", "meant"),
    [("lenghts", "lengths"), ("batch-size", "batch_size"), ("projection", "projections"), ("Epochs", "epochs")],
)
def test_an_unknown_key_names_the_nearest(key: str, meant: str, yaml_file: Callable[[str], Path]) -> None:
    message = refusal(lambda: load_config(str(yaml_file(f"seed: 1\n{key}: [8]"))))
    assert f"unknown key '{key}'; did you mean '{meant}'?" in message


@pytest.mark.parametrize("key", ["config", "resume"])
def test_a_file_cannot_say_which_file_to_read(key: str, yaml_file: Callable[[str], Path]) -> None:
    assert f"unknown key '{key}'" in refusal(lambda: load_config(str(yaml_file(f"{key}: digits"))))


@pytest.mark.parametrize(
    "text", ["- a\n- b", "some words", "5", "lengths: [8", "a: b: c", b"\xff\xfe\x00", "!!python/object:os.system {}"]
)
def test_what_is_no_yaml_mapping_is_refused_by_the_files_name(
    text: str | bytes, yaml_file: Callable[[str | bytes], Path]
) -> None:
    path = yaml_file(text)
    assert str(path) in refusal(lambda: load_config(str(path)))


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n"])
def test_an_empty_file_is_all_defaults(text: str, yaml_file: Callable[[str], Path]) -> None:
    path = yaml_file(text)
    assert load_config(str(path)) == Config(config=str(path))


@pytest.mark.parametrize("name", ["absent.yaml", "some/folder", "./digits", "../absent.yml"])
def test_a_missing_file_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name in refusal(lambda: load_config(name))


def test_an_unknown_shipped_config_names_the_nearest_and_all() -> None:
    message = refusal(lambda: load_config("cifar"))
    assert "'cifar'; did you mean 'cifar10'?" in message
    assert ", ".join(SHIPPED) in message


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("kalahash", "mah")])
def test_shipped_configs_follow_the_published_protocol(name: str) -> None:
    config = load_config(name)
    assert config.config == name
    assert (config.batch_size, config.labels_per_class) == (8, 1)
    random_start = config.model_copy(update={"head_init": "random"})
    assert (config.num_epochs, random_start.num_epochs) == (0, 100)
    assert (config.chosen_adapter, random_start.chosen_adapter) == ("none", "clora")
    assert (random_start.learning_rate, config.momentum, config.weight_decay) == (0.01, 0.9, 1e-5)
    assert (config.loss, config.alpha, config.beta, config.gamma) == ("kiddo", 0.1, 1.0, 3.0)
    assert (config.adapt_blocks, config.projections) == (1, ("k", "v"))
    assert (config.rank, config.adapter_scale, config.adapter_init) == (1, 1.0, "linear")
    assert (config.weighting, config.distillation, config.precision) == ("auto", 1.0, "fp32")
    assert (config.seed, config.protocol_seed) == (0, 0)


def test_mah_is_the_published_setting() -> None:
    config = load_config("mah")
    assert (config.head, config.head_init, config.batch_norm) == ("cascade", "random", False)
    assert (config.loss, config.loss_args) == ("adsh", {})  # whose defaults are MAH's
    assert (config.lengths, config.shots, config.batch_size, config.epochs) == ((4, 8, 16), 500, 64, 123)
    assert (config.weighting, config.distillation, config.gallery) == ("halving", 0, "labeled")
    rounds, epochs_a_round = 41, 3
    assert (config.learning_rate, config.momentum, config.weight_decay) == (0.001, 0, 5e-4)
    assert config.num_epochs == rounds * epochs_a_round
    rate, rates = 0.001, []
    for number in range(rounds):  # as the published loop has it, which divides once a round is over
        rates += [rate] * epochs_a_round
        rate /= 10 if number in (10, 20, 30, 40) else 1
    assert [config.learning_rate_in(epoch) for epoch in range(config.num_epochs)] == pytest.approx(rates)
    assert signature(ADSH).parameters["round_epochs"].default == epochs_a_round
    assert [signature(ADSH).parameters[key].default for key in ("quantization", "queries", "sweeps")] == [200, 2000, 1]
    assert not config.starts_in_closed_form
    assert not config.has_texts


def test_kalahash_is_the_published_setting() -> None:
    ours, published = (load_config(name).model_dump(exclude={"config", "lengths"}) for name in ("cifar10", "kalahash"))
    assert {key: published[key] for key in ours if ours[key] != published[key]} == {
        "batch_norm": False,
        "head_init": "random",
        "weighting": "uniform",
        "distillation": 0.0,
        "class_words": {"automobile": "car"},
    }
    assert load_config("kalahash").num_epochs == 100
    assert load_config("kalahash").chosen_adapter == "clora"
    assert len(load_config("kalahash").lengths) == 1
    assert load_config("kalahash").adapter_init == "linear"


PUBLISHED = {  # rank, strength, alpha, beta, gamma
    1: (1, 1.0, 0.1, 1.0, 3.0),
    2: (4, 0.3, 0.1, 0.1, 4.0),
    4: (1, 0.1, 0.01, 0.01, 2.0),
    8: (4, 0.2, 0.01, 0.1, 1.0),
}
"""KALAHash's published code, configs/experiment/kalahash_cifar10_*.yaml."""


@pytest.mark.parametrize("shots", PUBLISHED)
def test_kalahash_has_the_published_settings_of_each_number_of_shots(
    shots: int, parsed: Callable[..., Config], yaml_file: Callable[[str], Path]
) -> None:
    rank, strength, *weights = PUBLISHED[shots]
    for config in (
        parsed("--config", "kalahash", "--shots", shots),
        parsed("train", "--config=kalahash", f"--shots={shots}", entry=main),
        load_config("kalahash", shots).model_copy(update={"shots": shots}),
    ):
        assert config.shots == shots
        assert (config.rank, config.adapter_scale) == (rank, pytest.approx(strength / rank**0.5))
        assert [config.alpha, config.beta, config.gamma] == weights
        assert load_config(str(yaml_file(dump_config(config)))).model_dump(exclude={"config"}) == config.model_dump(
            exclude={"config"}
        )
    assert parsed("--config", "kalahash", "--shots", shots, "--rank", 2).rank == 2  # flags win


def test_kalahash_says_of_cifar10_what_its_published_code_says() -> None:
    theirs = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    config = load_config("kalahash")
    said = class_sentences(cifar10._CLASSES, config.prompts, config.descriptions, config.class_words)
    assert said == [[f"a photo of a {name}."] for name in theirs]


def test_kalahash_alone_is_its_one_shot_setting() -> None:
    assert load_config("kalahash") == load_config("kalahash", 1)


@pytest.mark.parametrize("shots", ["3", "all"])
def test_shots_that_a_file_has_no_settings_for_are_refused(shots: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(["--config", "kalahash", "--shots", shots]) == 2
    assert f"has settings for 1, 2, 4, 8 shots, not for {shots}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("by_shots: 3", "by_shots must map numbers of shots to settings"),
        ("by_shots: {}", "by_shots must map numbers of shots to settings"),
        ("by_shots: {1: 3}", "by_shots must map numbers of shots to settings"),
        ("by_shots: {one: {rank: 2}}", "by_shots has 'one', which is not a number of shots"),
        ("by_shots: {-1: {rank: 2}}", "by_shots has -1, which is not a number of shots"),
        ("by_shots: {1: {rank: 2}, 4: {lr: 1}}", "by_shots sets '(lr|rank)' only for some of 1, 4 shots"),
        ("rank: 3\nby_shots: {1: {rank: 2}}", "'rank' is set for all shots, and again in by_shots"),
        ("by_shots: {1: {shots: 2}}", "'shots' is set for all shots, and again in by_shots"),
        ("by_shots: {1: {rnk: 2}}", "unknown key 'rnk'; did you mean 'rank'"),
        ("shots: 2\nby_shots: {1: {rank: 2}}", "has settings for 1 shots, not for 2"),
    ],
)
def test_a_section_by_shots_that_says_something_odd_is_refused(
    text: str, said: str, yaml_file: Callable[[str], Path]
) -> None:
    assert re.search(said, refusal(lambda: load_config(str(yaml_file(text)))))


def test_a_file_of_ones_own_may_say_what_depends_on_shots(yaml_file: Callable[[str], Path]) -> None:
    text = "seed: 3\nhead_init: random\nshots: 4\nby_shots: {1: {rank: 2, lr: 0.5}, 4: {rank: 3, lr: 0.25}}"
    path = str(yaml_file(text))
    assert load_config(path) == Config(config=path, seed=3, head_init="random", shots=4, rank=3, lr=0.25)
    assert (load_config(path, 1).rank, load_config(path, "1").lr) == (2, 0.5)


def test_the_learning_rate_drops_after_epochs_that_are_named(parsed: Callable[..., Config]) -> None:
    assert parsed("--config", "mah", "--lr-drops", "").lr_drops == ()
    assert parsed("--head-init", "random", "--lr-drops", "2,3").lr_drops == (2, 3)
    assert parsed("--class-words", "automobile", "car").class_words == {"automobile": "car"}
    config = Config(head_init="random", lr=0.5, lr_drops=(2, 3))
    assert [config.learning_rate_in(epoch) for epoch in range(5)] == pytest.approx([0.5, 0.5, 0.05, 0.005, 0.005])


@pytest.mark.parametrize(
    ("changes", "texts", "closed_form", "rate"),
    [
        ({}, True, True, 3e-5),
        ({"head_init": "text", "anchors": "mine.npy"}, True, True, 3e-5),
        ({"head_init": "labels"}, False, True, 3e-5),
        ({"head_init": "labels", "anchors": "orthonormal"}, False, True, 3e-5),
        ({"head_init": "labels", "epochs": 1, "lr": 0.5}, False, True, 0.5),
        ({"head_init": "random"}, False, False, 0.01),
        ({"anchors": "orthonormal"}, False, False, 0.01),
        ({"anchors": "mine.npy"}, False, False, 0.01),
        ({"backbone": "tiny:random"}, False, False, 0.01),
        ({"head": "flat"}, False, False, 0.01),
    ],
)
def test_which_start_settings_mean(changes: dict[str, object], texts: bool, closed_form: bool, rate: float) -> None:
    config = Config(**changes)
    assert (config.has_texts, config.starts_in_closed_form, config.learning_rate) == (texts, closed_form, rate)


def test_without_texts_labels_alone_do() -> None:
    """No names are needed by labels, but an archive and some labels go together without names, too."""
    assert Config(head_init="labels", archive=Path("photos"), data="mine").labels_per_class == "all"
    assert Config(head_init="labels", epochs=0).trains is False


OBSOLETE = ("ridge", "text_weight", "unlabelled_weight")


@pytest.mark.parametrize("key", OBSOLETE)
def test_a_setting_of_earlier_versions_is_dropped_with_a_warning_that_says_why(
    key: str, yaml_file: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = yaml_file(f"seed: 3\n{key}: 4.0\nlengths: [5, 9]")
    assert load_config(str(path)) == Config(config=str(path), seed=3, lengths=(5, 9))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"{path}: {key} no longer has any effect: the start now estimates")
    assert key not in Config.model_fields


@pytest.mark.parametrize("key", OBSOLETE)
def test_code_and_flags_know_no_settings_of_earlier_versions(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert key in refusal(lambda: Config(**{key: 4.0}))
    with pytest.raises(SystemExit):
        train_main([f"--{key.replace('_', '-')}", "4"])
    assert key.replace("_", "-") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "normalizes"),
    [
        ({}, False),
        ({"head_init": "labels"}, False),
        ({"head_init": "random"}, True),
        ({"head_init": "random", "batch_norm": False}, False),
    ],
)
def test_only_a_random_start_normalizes_bits(changes: dict[str, object], normalizes: bool) -> None:
    assert Config(**changes).normalizes_bits is normalizes


@pytest.mark.parametrize(
    ("name", "data", "queries_per_class", "top_k"),
    [
        ("cifar10", "cifar10", 100, None),
        ("mscoco", "data/mscoco", None, 5000),
        ("nuswide21", "data/nuswide21", None, 5000),
    ],
)
def test_shipped_configs_of_the_papers_sets(
    name: str, data: str, queries_per_class: int | None, top_k: int | None
) -> None:
    config = load_config(name)
    assert (config.data, config.queries_per_class, config.queries) == (data, queries_per_class, None)
    assert (config.top_k, config.train_pool) == (top_k, None)
    assert config.backbone == "open_clip/ViT-B-32-quickgelu:openai"
    assert config.anchors == "text"
    assert config.prompts == ("a photo of a {}.",)
    assert config.lengths == (16, 32, 64)


def test_the_config_taken_by_default_needs_no_download() -> None:
    config = load_config(Config().config)
    assert (config.data, config.backbone) == ("digits", "tiny")
    assert config == Config(config="digits", backbone="tiny", shots=1)  # nothing of it is tuned for digits


def test_every_setting_is_in_effect_somewhere() -> None:
    assert set.union(*(config.model_fields_set for config in TOGETHER)) == Config.model_fields.keys()


@pytest.mark.parametrize("config", TOGETHER)
def test_dumped_settings_are_read_back_the_same(config: Config, yaml_file: Callable[[str], Path]) -> None:
    path = yaml_file(dump_config(config))
    assert load_config(str(path)) == config.model_copy(update={"config": str(path), "resume": None})


def test_resuming_starts_from_the_settings_of_the_run(tmp_path: Path, parsed: Callable[..., Config]) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(Config(seed=3, lengths=(5, 9), epochs=4)))
    for flags in (
        ["--resume", str(tmp_path)],
        [f"--resume={tmp_path}"],
    ):
        base = base_config(given(tyro.cli(Train, config=(OmitArgPrefixes,), args=flags), flags))
        assert (base.seed, base.lengths, base.epochs, base.data) == (3, (5, 9), 4, "digits")
    config = parsed("--resume", tmp_path, "--epochs", 8)
    assert (config.seed, config.lengths, config.epochs, config.resume) == (3, (5, 9), 8, tmp_path)


def test_resuming_with_another_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(Config()))
    assert "it cannot be combined with --config" in refusal(
        lambda: base_config({"config": "cifar10", "resume": tmp_path})
    )


def test_resuming_what_is_no_run_folder_names_it(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(lambda: base_config({"resume": tmp_path}))


FREE = {
    *("config", "resume", "epochs", "tracker"),
    *("threads", "workers", "backend", "encode_batch_size", "cache", "cache_gb"),
}


@pytest.mark.parametrize("key", sorted(CHANGED.keys() - FREE - {"checkpoint_every"}))
def test_a_run_is_not_resumed_with_another_setting(key: str) -> None:
    earlier = Config(batch_norm=False)
    value = True if key == "batch_norm" else CHANGED[key]
    config = earlier.model_copy(update={key: value, "resume": Path("runs/earlier")})
    message = refusal(lambda: check_resumable(earlier, config))
    assert re.search(rf"\b{key}\b", message)
    assert str(value) in message


@pytest.mark.parametrize("key", sorted(FREE | {"checkpoint_every"}))
def test_a_run_is_resumed_for_longer_or_on_another_machine(key: str) -> None:
    check_resumable(Config(), Config().model_copy(update={"resume": Path("runs/earlier"), key: CHANGED[key]}))


def test_settings_are_free_where_nothing_is_resumed() -> None:
    for config in TOGETHER:
        check_resumable(Config(), config.model_copy(update={"resume": None}))


def test_every_setting_has_one_group_but_two_that_are_of_all() -> None:
    grouped = [key for group in GROUPS.values() for key in group.model_fields]
    assert sorted([*grouped, "config", "seed"]) == sorted(Config.model_fields)


def test_settings_in_groups_are_the_same_as_without(yaml_file: Callable[[str], Path]) -> None:
    flat = load_config(str(yaml_file("{seed: 3, data: photos, shots: 2, lengths: [8, 4], head_init: random, rank: 2}")))
    text = """
        seed: 3
        data: {data: photos, shots: 2}
        head: {lengths: [8, 4]}
        start: {head_init: random}
        model: {rank: 2}
        text:
    """
    grouped = load_config(str(yaml_file(text)))
    assert grouped == flat
    assert grouped.model_fields_set == flat.model_fields_set
    assert (grouped.data, grouped.shots, grouped.lengths, grouped.rank) == ("photos", 2, (4, 8), 2)


def test_what_depends_on_shots_may_stand_in_groups(yaml_file: Callable[[str], Path]) -> None:
    text = "start: {head_init: random}\nby_shots: {1: {model: {rank: 2}}, 4: {model: {rank: 3}}}"
    assert [load_config(str(yaml_file(text)), shots).rank for shots in (1, 4)] == [2, 3]
    odd = "by_shots: {1: {model: {rank: 2}}, 4: {training: {lr: 1}}}"
    assert "only for some of 1, 4 shots" in refusal(lambda: load_config(str(yaml_file(odd))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("head: {lenghts: [8]}", "unknown key 'head.lenghts'; did you mean 'lengths'?"),
        ("head: {shots: 2}", "unknown key 'head.shots': it belongs to the group data"),
        ("lengths: [8]\nhead: {lengths: [4]}", "'lengths' is set twice, once in the group head"),
        ("output: {resume: run}", "unknown key 'resume'"),
        ("training: {lr: -1}", "lr should be greater than 0, not -1"),
        ("heads: {lengths: [8]}", "unknown key 'heads'; did you mean 'head'?"),
        ("start: random", "unknown key 'start'"),
    ],
)
def test_a_group_that_says_something_odd_is_refused(text: str, said: str, yaml_file: Callable[[str], Path]) -> None:
    path = yaml_file(text)
    assert refusal(lambda: load_config(str(path))).startswith(f"{path}: {said}")


def test_a_run_writes_its_settings_by_groups_and_a_flat_file_of_all_is_read_the_same(
    yaml_file: Callable[[str], Path],
) -> None:
    config = Config(seed=3, lengths=(5, 9), data="photos", output=Path("runs/mine"))
    written = yaml.safe_load(dump_config(config))
    assert written.keys() == {"seed", *GROUPS}
    for name, group in GROUPS.items():
        assert written[name].keys() == group.model_fields.keys() - {"resume"}
    flat = yaml.safe_dump(config.model_dump(mode="json", exclude={"config", "resume"}))  # as earlier versions wrote it
    same = {"config"}
    assert load_config(str(yaml_file(flat))).model_dump(exclude=same) == config.model_dump(exclude=same)


def test_a_group_is_checked_by_itself() -> None:
    assert HeadSettings(lengths=[16, 8, 16]).lengths == (8, 16)
    assert "lengths must be 1 to 512 bits" in refusal(lambda: HeadSettings(lengths=[0]))
    assert "'lenghts'; did you mean 'lengths'?" in refusal(lambda: HeadSettings(lenghts=[8]))


def test_the_help_begins_with_what_matters_most_and_goes_on_by_groups(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    first, *groups = re.split(r"(?m)^\W+([a-z]+) options\b.*$", text)
    flags = re.findall(r"(?m)^[│ ] ?(--[a-z][a-z-]+)", first)
    assert flags == [f"--{key}" for key in FIRST]
    assert len(flags) == 10
    assert groups[::2] == list(GROUPS)
    for name, said in zip(groups[::2], groups[1::2], strict=True):
        flags = [flag.removeprefix("--").replace("-", "_") for flag in re.findall(r"(?m)^[│ ] ?(--[a-z][a-z-]+)", said)]
        assert flags == [key for key in GROUPS[name].model_fields if key not in FIRST]


def test_a_word_without_a_flag_is_a_folder_or_else_a_shipped_config(
    parsed: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parsed("photos") == parsed("--config", "photos") == load_config("photos")
    assert parsed("train", "digits", entry=main) == load_config("digits")
    assert parsed("cifar10", "--shots", 4).shots == 4
    (tmp_path / "photos").mkdir()
    assert parsed("photos") == parsed("--data", "photos") == Config(data="photos")
    assert parsed("--shots", 2, "photos") == Config(data="photos", shots=2)
    assert parsed("photos", "--config", "cifar10").queries_per_class == 100
    for args, said in (
        (["fotos"], "there is no folder fotos, nor a shipped config of that name"),
        (["photos", "--data", "digits"], "photos and --data digits set the same thing: leave one out"),
        (["cifar10", "--config", "digits"], "cifar10 and --config digits set the same thing: leave one out"),
    ):
        assert train_main(args) == 2
        assert said in capsys.readouterr().err


@pytest.fixture
def without_torch(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python where importing torch fails."""
    torch = tmp_path / "modules" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise ImportError('torch was imported')")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *args],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(torch.parent), "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )

    return run


TRAIN_PY = str(Path(__file__).parents[2] / "train.py")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["-m", "nestkala", "train", "--lenghts", "8"], "--lengths"),
        (["-m", "nestkala", "train", "--lengths", "0,8"], "lengths"),
        ([TRAIN_PY, "--epochs", "-1"], "epochs"),
        ([TRAIN_PY, "--config", "cifar"], "cifar10"),
        ([TRAIN_PY, "--config", "bad.yaml"], "bad.yaml: unknown key 'sed'; did you mean 'seed'?"),
        ([TRAIN_PY, "--resume", "run", "--lr", "0.5"], "lr"),
        ([TRAIN_PY, "--backbone", "open_clip/ViT-B-33:openai"], "ViT-B-32"),
    ],
)
def test_settings_are_refused_before_torch_is_imported(
    command: list[str], told: str, without_torch: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("sed: 1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(dump_config(Config()))
    done = without_torch(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "torch was imported" not in done.stderr
    assert "Traceback" not in done.stderr


def test_good_settings_do_import_torch(without_torch: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "torch was imported" in without_torch("-m", "nestkala", "train", "--epochs", "1").stderr


@pytest.mark.parametrize(
    ("flag", "meant"),
    [("--batchsize", "--batch-size"), ("--weigting", "--weighting"), ("--projection", "--projections")],
)
def test_an_unknown_flag_exits_with_the_nearest(flag: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        train_main([flag, "8"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert flag in error
    assert meant in error


@pytest.mark.parametrize(("entry", "args"), [(main, ["train", "--help"]), (train_main, ["--help"])])
def test_help_tells_every_setting_with_its_default(
    entry: Callable[[list[str]], int],
    args: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as caught:
        entry(args)
    assert caught.value.code == 0
    text = re.sub(r"\s+", " ", re.sub("[│╭╮╰╯─]|-{3,}", " ", capsys.readouterr().out))
    after = r"(?= --|(?: [a-z]+)? options |\s*$)"
    flag = r" --([a-z-]+)(?:, --no-[a-z-]+ |(?= [A-Z\[{]))"
    told = dict(re.findall(rf"{flag}(?:(?! --[a-z-]+(?: [A-Z\[{{]|, --no-)).)*?\(default: (.*?)\){after}", text))
    written = {"lengths": "8,16,32", "projections": "k,v", "prompts": "'a photo of a {}.'"}
    written |= {"loss_args": "", "class_words": "", "lr_drops": "''"}
    assert {key.replace("-", "_"): default for key, default in told.items()} == {
        key: written.get(key, str(value)) for key, value in Config().model_dump().items() if value is not None
    }
    assert "None)" not in text
    assert "{None}" not in text


def test_help_describes_the_config_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train_main(["--config", "cifar10", "--help"])
    assert "(default: 16,32,64)" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["split", "descriptions", "anchors"])
def test_a_file_that_is_not_there_is_told_before_anything_loads(key: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent.npy"
    value = str(absent) if key == "anchors" else absent
    assert f"{key}: there is no file {absent}" in refusal(lambda: check_files(Config(**{key: value})))
    absent.touch()
    check_files(Config(**{key: value}))


def test_a_resumed_run_does_not_need_the_split_it_was_given(tmp_path: Path) -> None:
    check_files(Config(split=tmp_path / "absent.json", resume=tmp_path))


def test_settings_that_were_spelled_differently_are_read(yaml_file: Callable[[str], Path]) -> None:
    old = "{data: photos, gallery: labelled, centres: independent, loss: csq, head_init: random, queries: 3}"
    config = load_config(str(yaml_file(old)))
    assert (config.gallery, config.centers) == ("labeled", "independent")
    grouped = load_config(str(yaml_file("{data: {data: photos}, start: {unlabelled: 77}}")))
    assert grouped.unlabeled == 77


def test_an_archive_gets_the_lengths_of_photographs_unless_others_are_given() -> None:
    flags: dict[str, Any] = {"archive": Path("photos"), "classes": "dog,cat"}
    assert with_flags(base_config(flags), flags).lengths == load_config("photos").lengths
    flags |= {"lengths": (8,)}
    assert with_flags(base_config(flags), flags).lengths == (8,)
