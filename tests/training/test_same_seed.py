"""The same settings give the same bits, in any process, and nothing is drawn from anybody else's generator."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from nestkala.plugins import plugins
from nestkala.settings.config import Config
from nestkala.training.run import train

WIDTH = 6


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def contents(run: Path) -> dict[str, object]:
    """All that a run leaves, but for where it lies and how long it took."""
    found: dict[str, object] = {}
    for path in run.iterdir():
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                told = {key: json.loads(value) for key, value in (file.metadata() or {}).items() if value[0] in "{["}
                found[path.name] = [told, {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}]  # noqa: SIM118
        else:
            found[path.name] = path.read_text()
    lines = str(found["config.yaml"]).splitlines()
    found["config.yaml"] = [line for line in lines if not line.startswith("  output:")]
    found["metrics.json"] = {k: v for k, v in json.loads(str(found["metrics.json"])).items() if k != "seconds"}
    return found


def test_a_run_is_repeated_to_the_bit_from_its_own_settings_in_another_process(images: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    small = {"lengths": (4, 20), "queries": 4, "shots": 4, "epochs": 2, "workers": 0, "threads": 1, "cache_gb": 0}
    train(Config(data=str(images), output=first, seed=3, protocol_seed=5, **small))
    command = [sys.executable, "-m", "nestkala", "train", "--config", first / "config.yaml", "--output", again]
    subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True)
    one, other = contents(first), contents(again)
    assert len(one) == 7
    assert one == other


def refused(*args: object, **options: object) -> None:
    raise AssertionError(f"drawn from a global generator, with {args} {options}")


@pytest.fixture
def no_global_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """`random.random`, `np.random.rand` and all the others that share a hidden state raise."""
    hidden = random._inst, np.random.mtrand._rand  # type: ignore[attr-defined]
    patched = 0
    for module in (random, np.random):
        for name in dir(module):
            if any(getattr(getattr(module, name), "__self__", None) is state for state in hidden):
                monkeypatch.setattr(module, name, refused)
                patched += 1
    assert patched > 50


def run_on_features(folder: Path, name: str, **settings: object) -> dict[str, torch.Tensor]:
    """What a short run with this loss, in double precision and with a length of one bit, trains."""
    data = folder / "own"
    if not data.exists():
        data.mkdir()
        np.save(data / "features.npy", np.random.default_rng(0).normal(size=(60, WIDTH)))
        np.save(data / "labels.npy", np.repeat(np.arange(3), 20))
    given: dict[str, object] = {"data": str(data), "backbone": f"features:{WIDTH}", "adapter": "none", "epochs": 2}
    given |= {
        "anchors": "orthonormal",
        "lengths": (1, 7),
        "shots": 4,
        "batch_size": 4,
        "workers": 0,
        "threads": 1,
        "loss": name,
    }
    AcceleratorState._reset_state()
    run = train(Config(**(given | settings), output=folder / "run"))
    scores = [
        score
        for of_length in json.loads((run / "metrics.json").read_text())["lengths"].values()
        for score in of_length.values()
    ]
    assert all(0 <= score <= 1 for score in scores)
    return load_file(run / "model.safetensors")


@pytest.mark.usefixtures("no_global_draws")
@pytest.mark.parametrize("name", plugins("losses"))
def test_no_loss_draws_from_a_global_generator(name: str, tmp_path: Path) -> None:
    assert all(tensor.isfinite().all() for tensor in run_on_features(tmp_path, name, precision="fp64").values())


@pytest.mark.parametrize("name", ["adsh", "greedyhash"])
def test_torchs_own_generator_has_no_say(name: str, tmp_path: Path) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        found.append(run_on_features(folder, name, loss_args={"queries": 8.0} if name == "adsh" else {"seed": 3.0}))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
