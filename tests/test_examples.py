"""The files in examples/ run as they are, on little data, and find what they say."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
CHANCE = 0.11  # of the digits' ten classes, all about equally frequent


def run(name: str, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def scores(printed: str) -> list[float]:
    """The mAP of each length, in the order of the lengths."""
    return [float(found) for found in re.findall(r"^\d+ bits: tie-aware mAP (\S+)$", printed, re.M)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("name", "lengths"), [("nested_csq.py", 4), ("mah_cascade.py", 3), ("greedyhash.py", 3)])
def test_losses_on_digits_learn(name: str, lengths: int, capsys: pytest.CaptureFixture[str]) -> None:
    run(name, "--epochs", "9")
    found = scores(capsys.readouterr().out)
    assert len(found) == lengths
    assert found[-1] > found[0] > 2 * CHANCE


def test_kalahash_trains_from_a_few_labels(capsys: pytest.CaptureFixture[str]) -> None:
    run("kalahash_few_shot.py", "--epochs", "5")
    found = scores(capsys.readouterr().out)
    assert len(found) == 3
    assert min(found) > CHANCE


def test_own_features_find_their_class(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 4)
    Path("features").mkdir()
    np.save("features/features.npy", 20 * rng.normal(size=(4, 12))[labels] + rng.normal(size=(200, 12)))
    np.save("features/labels.npy", labels)
    run("own_features.py", "features")
    found = re.findall(r"^(closed form|own loop): (.*)$", capsys.readouterr().out, re.M)
    assert [how for how, _ in found] == ["closed form", "own loop"]
    for _, ids in found:
        assert {labels[int(name)] for name in ids.split()} == {labels[0]}


def test_a_plain_loop_searches_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        path = Path("photos") / ("ab"[number % 2]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    run("plain_pytorch.py", "photos", "photos/a/0.png", "--random-weights", "--epochs", "1")
    found = dict(re.findall(r"^(\d+) bits: (.*)$", capsys.readouterr().out, re.M))
    assert found.keys() == {"8", "64"}
    for paths in found.values():
        assert len(set(paths.split())) == 5
        assert all(Path(path).is_file() for path in paths.split())
    assert found["64"].split()[0] == "photos/a/0.png"  # the query itself, at distance 0


def test_examples_are_short() -> None:
    for example in EXAMPLES.rglob("*.py"):
        assert len(example.read_text().splitlines()) <= 80, example
