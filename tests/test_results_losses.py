"""What the tables over all losses say of runs whose scores were written by hand."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nestkala.experiments import Run
from nestkala.settings.loading import dump_config
from nestkala.utils.errors import NestKALAError


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parent.parent / "scripts" / "results_losses.py"
    spec = importlib.util.spec_from_file_location("results_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def experiment(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(script.Experiment, "_split", lambda *_: tmp_path / "split.json")
    return script.Experiment(script.Settings(data=tmp_path, runs=tmp_path / "runs", seeds=2))


def write(run: Run, score: float | None, seconds: float = 1.0) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    if score is None:
        (run.folder / "diverged.txt").write_text("step 3: the loss is not finite\n")
        return
    lengths = {str(bits): {"map": 0.0, "map_tie_aware": score + bits / 1000} for bits in run.config.lengths}
    (run.folder / "metrics.json").write_text(json.dumps({"lengths": lengths, "seconds": {"train": seconds}}))


def tuned(experiment, script: ModuleType, loss: str, adapter: str, best: float) -> None:
    for rate in script.RATES:
        write(experiment._tuning(loss, adapter)[rate], 0.3 if rate == best else None if rate == 1 else 0.2)


def test_the_rate_is_the_best_in_tuning_and_what_diverges_is_never_it(experiment, script: ModuleType) -> None:
    tuned(experiment, script, "csq", "none", best=0.1)
    cell = script.frozen("csq")[0]
    assert experiment.rate(cell) == 0.1
    assert [run.config.lr for run in experiment.runs(cell)] == [0.1, 0.1]
    assert experiment.rate(script.head("flat")) == 0.001  # its own


def test_a_nested_rate_is_the_better_of_that_of_one_length_and_a_tenth(experiment, script: ModuleType) -> None:
    tuned(experiment, script, "csq", "clora", best=0.1)
    runs = experiment._nested_tuning("csq", "clora")
    assert [run.config.lr for run in runs.values()] == [0.1, pytest.approx(0.01)]
    write(runs[0.1], 0.3)
    write(runs[0.1 / 10], 0.31)
    assert experiment.rate(script.nested("csq")) == pytest.approx(0.01)
    assert experiment.rate(script.one_by_one("csq")[0]) == 0.1
    write(runs[0.1 / 10], None)
    assert experiment.rate(script.nested("csq", 1)) == 0.1


def test_scores_and_gains_are_those_of_the_seeds(experiment, script: ModuleType) -> None:
    for adapter, scores in {"none": (0.2, 0.3), "clora": (0.25, 0.27)}.items():
        tuned(experiment, script, "csq", adapter, best=0.01)
        for cell in script.frozen("csq") if adapter == "none" else script.one_by_one("csq"):
            for run, score in zip(experiment.runs(cell), scores, strict=True):
                write(run, score)
    without = experiment.scores(script.frozen("csq"), script.TABLE_1)
    np.testing.assert_allclose(without, [[0.216, 0.232, 0.264], [0.316, 0.332, 0.364]])
    table = script.clora_table(experiment, ["csq"])
    assert "*CLoRA helps every loss*: held. It helped 1 of 1, on average over the losses by +1.0 ± 5.7." in table
    cells = [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
    assert cells == ["csq", "27.6 ± 1.4", "29.2 ± 1.4", "32.4 ± 1.4", "29.7 ± 1.4", "28.7 ± 7.1", "+1.0 ± 5.7"]


def test_what_diverged_is_said_and_counts_nothing_in_differences(experiment, script: ModuleType) -> None:
    tuned(experiment, script, "csq", "none", best=0.01)
    cell = script.frozen("csq")[0]
    for run, score in zip(experiment.runs(cell), (0.2, None), strict=True):
        write(run, score, seconds=3.0)
    scores = experiment.scores([cell], [16])
    assert script._row(scores) == ["1 of 2 diverged"] * 2
    np.testing.assert_allclose(script._gain(scores, np.array([[0.1], [0.1]])), [11.6, -10])
    assert experiment.seconds([cell]) == 3.0


def test_nested_against_one_by_one_in_score_and_time(experiment, script: ModuleType) -> None:
    tuned(experiment, script, "csq", "clora", best=0.01)
    for rate, run in experiment._nested_tuning("csq", "clora").items():
        write(run, 0.3 if rate == 0.01 else 0.2)
    for cell in [*script.one_by_one("csq"), script.nested("csq")]:
        for run in experiment.runs(cell):
            write(run, 0.2 if cell == script.nested("csq") else 0.21, seconds=2.0)
    for cell in [*script.one_by_one("csq", 1), script.nested("csq", 1)]:
        for run in experiment.runs(cell):
            write(run, 0.2)
    table = script.nesting_table(experiment, ["csq"])
    assert "*Nested beats one by one on average*: did not hold. At 8 shots the difference is -1.0 ± 0.0" in table
    assert "lengths*: held. For 4 lengths it was 4.0 times faster (4.0 to 4.0)." in table


def test_a_folder_of_other_settings_is_refused(experiment, script: ModuleType) -> None:
    tuned(experiment, script, "csq", "none", best=0.01)
    run = next(experiment.runs(script.frozen("csq")[0]))
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(dump_config(run.config))
    run.check()
    (run.folder / "config.yaml").write_text(dump_config(run.config.model_copy(update={"lr": 0.5})))
    with pytest.raises(NestKALAError, match=r"holds a run with lr 0.5, not 0.01: name other --runs"):
        run.check()
