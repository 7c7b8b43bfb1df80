"""Runs of a table: finished once, resumed where they stopped, and those that diverge told apart."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from nestkala.experiments import Run, finish, mean_and_spread
from nestkala.experiments import runs as run_module
from nestkala.settings.config import Config
from nestkala.utils.errors import NestKALAError


@pytest.fixture
def make(tmp_path: Path):
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    np.save(tmp_path / "features.npy", rng.normal(size=(3, 8))[labels] + 0.3 * rng.normal(size=(60, 8)))
    np.save(tmp_path / "labels.npy", labels)

    def run(name: str, **changes: object) -> Run:
        given = {
            "data": str(tmp_path),
            "backbone": "features:8",
            "adapter": "none",
            "anchors": "orthonormal",
            "lengths": (4, 8),
            "shots": 4,
            "epochs": 4,
            "queries_per_class": 3,
            "checkpoint_every": 1,
            "workers": 0,
        }
        return Run(Config(**(given | changes)), tmp_path / "runs" / name)

    return run


def test_what_is_finished_is_not_repeated(make, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make("a"), make("b", seed=1)]
    finish(runs)
    assert all(run.is_finished and not run.has_diverged for run in runs)
    assert set(runs[0].metrics["lengths"]) == {"4", "8"}
    monkeypatch.setattr(run_module, "train", pytest.fail)
    finish(runs)


def test_a_run_that_stopped_goes_on_from_its_checkpoint(make, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = make("whole"), make("part")
    whole.finish()
    make("part", epochs=2).finish()
    (part.folder / "metrics.json").unlink()
    assert not part.is_finished
    resumed = []
    train = run_module.train
    monkeypatch.setattr(run_module, "train", lambda config, **to: (resumed.append(config.resume), train(config, **to)))
    part.finish()
    assert resumed == [part.folder]
    one, two = (load_file(run.folder / "checkpoint.safetensors") for run in (whole, part))
    assert all((one[name] == two[name]).all() for name in one)


def test_what_a_stopped_run_left_before_its_first_checkpoint_is_made_anew(make) -> None:
    run = make("a")
    run.folder.mkdir(parents=True)
    (run.folder / "split.json").write_text("half of it")
    run.finish()
    assert run.is_finished


def test_a_run_that_diverges_is_finished_and_says_where(make) -> None:
    run = make("a", lr=1e30)
    finish([run])
    assert run.has_diverged
    assert run.is_finished
    assert "finite" in (run.folder / "diverged.txt").read_text()


def test_any_other_error_names_the_run(make) -> None:
    run = make("a", shots=1000)
    with pytest.raises(NestKALAError, match=r"runs/a: class 'class 0' has \d+ images"):
        run.finish()
    assert not run.is_finished


def test_mean_and_spread_are_those_of_the_sample_in_points() -> None:
    values = [0.311, 0.298, 0.342]
    expected = f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
    assert mean_and_spread(values) == expected
    assert mean_and_spread([0.25]) == "25.0 ± 0.0"
