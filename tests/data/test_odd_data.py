"""Whole runs on odd data: metrics in [0, 1], or one clear line and exit code 2."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from nestkala.cli import main

NUM, WIDTH = 60, 6
ONE_EACH = np.repeat(np.arange(3), NUM // 3)
SOME_NONE = np.eye(3, dtype=int)[ONE_EACH] * (np.arange(NUM) % 2)[:, None]
ALL = np.ones((NUM, 3), int)


def run(folder: Path, labels: np.ndarray, *flags: str, features: np.ndarray | None = None) -> int:
    """Train for two epochs; exit code of the command."""
    drawn = np.random.default_rng(0).normal(size=(len(labels), WIDTH)).astype(np.float32)
    (folder / "own").mkdir()
    np.save(folder / "own" / "features.npy", drawn if features is None else features)
    np.save(folder / "own" / "labels.npy", labels)
    settings = (
        f"train --data {folder / 'own'} --backbone features:{WIDTH} --adapter none --anchors orthonormal --shots 2 "
    )
    settings += f"--output {folder / 'run'} --epochs 2 --workers 0 --threads 1 --batch-size 2 --lengths 4,12"
    return main([*settings.split(), *flags])


def assert_sound(folder: Path) -> None:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    scores = [score for of_length in metrics["lengths"].values() for score in of_length.values()]
    assert scores
    assert all(0 <= score <= 1 for score in scores)
    assert all(tensor.isfinite().all() for tensor in load_file(folder / "run" / "model.safetensors").values())


@pytest.mark.parametrize(
    ("labels", "flags"),
    [
        (np.zeros(NUM, int), ""),
        (np.zeros(NUM, int), "--loss mdsh"),
        (np.zeros(2, int), "--shots 1 --batch-size 1 --no-batch-norm"),
        (np.arange(3)[[0, 1, 2, 0, 1, 2]], "--shots 1 --queries-per-class 1"),
        (ALL, "--shots 100"),
        (SOME_NONE, "--queries 5 --gallery labeled"),
        (SOME_NONE, "--head cascade --loss dsdh"),
        (ONE_EACH, "--lengths 1 --precision bf16"),
        (ONE_EACH, "--lengths 512"),
        (ONE_EACH, "--lengths 512,1,2,1 --precision fp64"),
    ],
    ids=lambda value: str(value.shape) if isinstance(value, np.ndarray) else value,
)
def test_scores_and_model_are_finite(tmp_path: Path, labels: np.ndarray, flags: str) -> None:
    assert run(tmp_path, labels, *flags.split()) == 0
    assert_sound(tmp_path)


@pytest.mark.parametrize("features", [np.zeros((NUM, WIDTH)), np.full((NUM, WIDTH), 0.1)])
def test_images_that_are_all_alike_train_to_bits_that_are_told_to_be_constant(
    tmp_path: Path, features: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, ONE_EACH, features=features) == 0
    assert_sound(tmp_path)
    assert "warning: 12 of 12 bits are the same for all training images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "flags", "said"),
    [
        (np.arange(3), "", "class 'class 0' has 1 images in the training pool, but shots is 2"),
        (np.zeros(1, int), "", "the gallery is empty: all 1 images are queries"),
        (0 * ALL, "", "queries is 1, but only 0 images have a label"),
        (ONE_EACH, "--shots 50", "images in the training pool, but shots is 50"),
        (ALL, "--loss greedyhash", "needs images with exactly one class each"),
        (ONE_EACH, "--loss dsdh --loss-args nu nan", "nu must be above 0, not nan"),
        (ONE_EACH, "--loss dch --loss-args gamma 0", "gamma must be above 0, not 0.0"),
        (ONE_EACH, "--loss dpsh --loss-args quantization -1", "quantization must be 0 or more, not -1.0"),
        (ONE_EACH, "--loss greedyhash --loss-args seed 1.5", "seed must be a whole number from 0 to"),
        (ONE_EACH, "--lr 1e38 --loss dsh --no-batch-norm", "the loss at 4 bits is not finite"),
    ],
    ids=lambda value: str(value.shape) if isinstance(value, np.ndarray) else value,
)
def test_what_cannot_be_is_one_line_and_exit_code_2(
    tmp_path: Path, labels: np.ndarray, flags: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, labels, *flags.split()) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line.lower()]
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("wrong", [np.nan, 1e39])
def test_a_feature_that_no_float_holds_is_named(
    tmp_path: Path, wrong: float, capsys: pytest.CaptureFixture[str]
) -> None:
    features = np.zeros((NUM, WIDTH))
    features[:, 1] = wrong
    assert run(tmp_path, ONE_EACH, features=features) == 2
    assert "contains numbers that are not finite" in capsys.readouterr().err
