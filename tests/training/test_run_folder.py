"""A run's folder is its own: with real processes that start at once, are killed, or share the runs of an experiment."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tqdm import tqdm

from nestkala.experiments.runs import refreshed
from nestkala.settings.config import Config
from nestkala.settings.loading import load_config
from nestkala.training import run_folder
from nestkala.training.run import train
from nestkala.training.run_folder import InUseError, held
from nestkala.utils.errors import NestKALAError
from reliability.launching import Launch

SMALL = ["--anchors", "orthonormal", "--head-init", "random", "--backbone", "features:8", "--queries-per-class", "3"]
SMALL += ["--lengths", "4,8", "--shots", "4", "--epochs", "3", "--checkpoint-every", "1"]

MEETING = """
import sys, time
from pathlib import Path
import nestkala.training.steps.images

def meet(load, here, name, number):
    def loaded(*arguments):
        (here / f"met-{name}").touch()
        while len(list(here.glob("met-*"))) < number:
            time.sleep(0.01)
        return load(*arguments)
    return loaded
"""

AT_ONCE = (
    MEETING
    + """
from nestkala.cli import main

name, number = sys.argv[1], int(sys.argv[2])
time.strftime = lambda *_: "20260101-000000"  # the same second
images = nestkala.training.steps.images
images.load_dataset = meet(images.load_dataset, Path(), name, number)
sys.exit(main(["train", *sys.argv[3:]]))
"""
)


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own features in three classes; the working folder is beside them."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "features.npy", rng.normal(size=(3, 8))[labels] + 0.3 * rng.normal(size=(60, 8)))
    np.save(tmp_path / "own" / "labels.npy", labels)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "own"


def at_once(features: Path, *arguments: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Trainings of which none makes its folder before all have looked."""
    command = [sys.executable, "-c", AT_ONCE]
    started = [
        subprocess.Popen(
            [*command, str(number), str(len(arguments)), "--data", str(features), *SMALL, *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, given in enumerate(arguments)
    ]
    return [
        subprocess.CompletedProcess(process.args, process.wait(), out, err)
        for process in started
        for out, err in [process.communicate()]
    ]


def settings(features: Path, **changes: object) -> Config:
    given = {"data": str(features), "anchors": "orthonormal", "head_init": "random", "backbone": "features:8"}
    small = {"queries_per_class": 3, "lengths": (4, 8), "shots": 4, "epochs": 3, "checkpoint_every": 1}
    return Config(**given | small | changes)


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(features: Path) -> None:
    losses = ["dpsh", "csq", "dsh"]
    for done in at_once(features, *[["--loss", loss] for loss in losses]):
        assert done.returncode == 0, done.stderr
    folders = sorted(Path("runs").iterdir())
    assert [folder.name for folder in folders] == [
        "own-4shot-seed0-20260101-000000",
        "own-4shot-seed0-20260101-000000-2",
        "own-4shot-seed0-20260101-000000-3",
    ]
    assert sorted(load_config(str(folder / "config.yaml")).loss for folder in folders) == sorted(losses)
    for folder in folders:
        loss = load_config(str(folder / "config.yaml")).loss
        alone = train(settings(features, loss=loss, output=Path("alone", loss)))
        scores, expected = (json.loads((of / "metrics.json").read_text())["lengths"] for of in (folder, alone))
        assert scores == expected


def test_of_runs_to_one_output_one_alone_trains_there(features: Path) -> None:
    Path("runs/one").mkdir(parents=True)  # that it is there, and empty, is no claim to it
    losses = ["dpsh", "csq", "dsh"]
    done = at_once(features, *[["--loss", loss, "--output", "runs/one"] for loss in losses])
    assert sorted(each.returncode for each in done) == [0, 2, 2]
    for each, loss in zip(done, losses, strict=True):
        if each.returncode == 0:
            assert load_config("runs/one/config.yaml").loss == loss
            alone = train(settings(features, loss=loss, output=Path("alone")))
        else:
            said = each.stderr.splitlines()[-1]
            assert said.startswith("error: runs/one ")
            assert "is in use by another process" in said or "already exists" in said
    scores, expected = (json.loads(Path(of, "metrics.json").read_text())["lengths"] for of in ("runs/one", alone))
    assert scores == expected


def test_a_checkpoint_that_lies_there_is_not_continued(features: Path) -> None:
    run = train(settings(features, output=Path("run")))
    for name in ("config.yaml", "split.json", "model.json", "model.safetensors", "metrics.json", "history.json"):
        (run / name).unlink()
    before = (run / "checkpoint.safetensors").read_bytes()
    with pytest.raises(NestKALAError, match="run already exists"):
        train(settings(features, output=run, epochs=5))
    assert (run / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.slow
def test_processes_of_one_job_share_a_folder_that_was_free(features: Path) -> None:
    script = Path("script.py")
    script.write_text(AT_ONCE)
    Path("runs", "own-4shot-seed0-20260101-000000").mkdir(parents=True)
    arguments = "0", "1", "--data", features, *SMALL
    with Launch(2, script, *arguments, folder=Path("log")) as launch:
        launch.done()
    assert {path.name for path in Path("runs").iterdir() if any(path.iterdir())} == {
        "own-4shot-seed0-20260101-000000-2"
    }
    assert Path("runs", "own-4shot-seed0-20260101-000000-2", "metrics.json").is_file()


@pytest.mark.slow
def test_processes_of_one_job_all_hear_that_an_output_is_taken(features: Path) -> None:
    Path("script.py").write_text(
        "import sys\nimport nestkala.training.run\nfrom nestkala.cli import main\n"
        "nestkala.training.run.check_output = lambda config: None  # somebody took it after we looked\n"
        "sys.exit(main(['train', *sys.argv[1:]]))\n"
    )
    Path("taken").mkdir()
    Path("taken", "mine.txt").touch()
    arguments = "--data", features, *SMALL, "--output", "taken"
    with Launch(2, "script.py", *arguments, folder=Path("log")) as launch:
        assert launch.wait(120) != 0
        assert launch.said.count("error: taken already exists") == 2
    assert [path.name for path in Path("taken").iterdir()] == ["mine.txt"]


HOLD = """
import sys, time
from pathlib import Path
from nestkala.training.run_folder import held

with held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_at_a_time_goes_on_with_a_run(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(settings(features, output=Path("run")))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    monkeypatch.setattr(run_folder, "_PATIENCE", 0.3)
    with pytest.raises(InUseError, match="run is in use by another process"):
        train(settings(features, resume=run, output=run, epochs=5))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    train(settings(features, resume=run, output=run, epochs=5))
    assert len(json.loads((run / "history.json").read_text())) == 5


def test_a_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    with held(tmp_path):
        with pytest.raises(InUseError), held(tmp_path):
            pass
        child = os.fork()  # as decoding processes are
        if child == 0:
            time.sleep(600)
            os._exit(0)
    try:
        with held(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


SHARE = """
import sys, time
from pathlib import Path
from nestkala.settings.config import Config
from nestkala.experiments import Run, finish
from nestkala.experiments import runs as module

data, name = sys.argv[1:]
train = module.train

def logged(config, **held):
    folder = config.resume or config.output
    Path(f"log-{name}").open("a").write(f"{folder.name}\\n")
    train(config, **held)

module.train = logged
given = dict(data=data, anchors="orthonormal", head_init="random", backbone="features:8", queries_per_class=3)
small = dict(lengths=(4, 8), shots=4, epochs=30, checkpoint_every=1)
runs = [Run(Config(**given, **small, seed=seed), Path("runs", str(seed))) for seed in range(6)]
Path(f"here-{name}").touch()
while len(list(Path().glob("here-*"))) < 2:
    time.sleep(0.01)
finish(runs)
for run in runs:
    assert run.is_finished and not run.has_diverged
"""


def test_the_same_experiment_started_twice_shares_its_runs(features: Path) -> None:
    command = [sys.executable, "-c", SHARE, str(features)]
    started = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "ab"]
    for process in started:
        _, said = process.communicate()
        assert process.returncode == 0, said
    trained = [
        folder for name in "ab" if Path(f"log-{name}").exists() for folder in Path(f"log-{name}").read_text().split()
    ]
    assert Counter(trained) == Counter(map(str, range(6)))
    for seed in range(6):
        alone = train(settings(features, epochs=30, seed=seed, output=Path("alone", str(seed))))
        ours, expected = (load_file(of / "model.safetensors") for of in (Path("runs", str(seed)), alone))
        assert all((ours[name] == expected[name]).all() for name in expected)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_bar_on_a_terminal_goes_on_while_nothing_is_done(kind: type[io.StringIO]) -> None:
    file = kind()
    with tqdm(total=2, file=file) as bar:
        before = len(file.getvalue())
        with refreshed(bar, seconds=0.01):
            until = time.monotonic() + (20 if kind is Terminal else 0.2)
            while len(file.getvalue()) == before and time.monotonic() < until:
                time.sleep(0.01)
        assert (len(file.getvalue()) > before) == (kind is Terminal)
