"""Experiment files: what they may say, the runs they stand for, and the tables made of them."""

import json
import re
import statistics
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from nestkala.cli import main
from nestkala.experiments import (
    Experiment,
    Grid,
    absent_data,
    check_shared,
    load_experiment,
    make_grid,
    tuned,
    write_output,
)
from nestkala.experiments import grid as grid_module
from nestkala.experiments import runs as run_module
from nestkala.settings.files import shipped_files
from nestkala.settings.loading import dump_config, load_config
from nestkala.utils.errors import NestKALAError

SHIPPED = shipped_files("nestkala.configs.experiments")


def experiment(**changes: object) -> Experiment:
    given = {
        "name": "try",
        "title": "A try",
        "base": "kalahash",
        "settings": {"backbone": "tiny"},
        "data": {"Digits": {"data": "digits"}},
        "shots": [1, 4],
        "lengths": [8, 4],
        "seeds": 2,
        "methods": {"frozen": {"adapter": "none"}, "nested": {"base": "digits", "one_model": True, "shots": [4]}},
    }
    return Experiment(**given | changes)


def grid_of(given: Experiment, folder: Path, **overrides: object) -> Grid:
    return make_grid(given, folder, {}, (), overrides)


def write(grid: Grid, scores: dict[str, list[float | None]]) -> None:
    """Leave what finished runs leave: {row: tie-aware mAP of each seed at 0 bits}, each bit adds 0.01."""
    for trial in grid.trials:
        score = scores[trial.row.name][trial.seed]
        for run in trial.runs:
            run.folder.mkdir(parents=True)
            if score is None:
                (run.folder / "diverged.txt").write_text("the loss is not finite\n")
                continue
            found = {str(b): {"map": 0.0, "map_tie_aware": score + b / 100} for b in run.config.lengths}
            metrics = {"lengths": found, "seconds": {"train": 2.0 + trial.seed}}
            (run.folder / "metrics.json").write_text(json.dumps(metrics))


def cells(text: str, row: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_grid_has_exactly_these_runs(tmp_path: Path) -> None:
    runs = grid_of(experiment(), tmp_path).runs
    found = [
        (
            run.folder.relative_to(tmp_path / "try" / "digits").as_posix(),
            run.config.lengths,
            run.config.shots,
            run.config.seed,
            run.config.adapter,
            run.config.weighting,
        )
        for run in runs
    ]
    assert found == [
        ("frozen-1shot-seed0-4bits", (4,), 1, 0, "none", "uniform"),
        ("frozen-1shot-seed0-8bits", (8,), 1, 0, "none", "uniform"),
        ("frozen-1shot-seed1-4bits", (4,), 1, 1, "none", "uniform"),
        ("frozen-1shot-seed1-8bits", (8,), 1, 1, "none", "uniform"),
        ("frozen-4shot-seed0-4bits", (4,), 4, 0, "none", "uniform"),
        ("frozen-4shot-seed0-8bits", (8,), 4, 0, "none", "uniform"),
        ("frozen-4shot-seed1-4bits", (4,), 4, 1, "none", "uniform"),
        ("frozen-4shot-seed1-8bits", (8,), 4, 1, "none", "uniform"),
        ("nested-4shot-seed0-all", (4, 8), 4, 0, "auto", "auto"),
        ("nested-4shot-seed1-all", (4, 8), 4, 1, "auto", "auto"),
    ]


def test_a_base_says_nothing_of_data_and_overrides_win(tmp_path: Path) -> None:
    data = {"Digits": {"data": "digits", "top_k": 7}, "More": {"data": "digits"}}
    methods = {"trained": {"lr": 0.5, "backbone": "tiny:random"}, "closed form": {"base": "cifar10", "epochs": 0}}
    given = experiment(data=data, methods=methods, seeds=1, shots=[1], lengths=[8])
    runs = grid_of(given, tmp_path, backbone="tiny", epochs=5).runs
    assert [(run.config.top_k, run.config.queries_per_class) for run in runs] == [(7, None)] * 2 + [(None, None)] * 2
    assert [run.config.epochs for run in runs] == [5, 0] * 2
    assert [run.config.lr for run in runs] == [0.5, None] * 2
    assert {run.config.backbone for run in runs} == {"tiny"}


def test_a_sweep_is_a_row_a_value_and_its_reference_the_same_value(tmp_path: Path) -> None:
    losses = {"loss": ["dpsh", "csq"]}
    methods = {"alone": {"adapter": "none", "sweep": losses}, "CLoRA": {"sweep": losses, "reference": "alone"}}
    given = experiment(methods=methods, seeds=1, shots=[1], lengths=[8])
    runs = grid_of(given, tmp_path).runs
    assert [(run.folder.name, run.config.loss, run.config.adapter) for run in runs] == [
        ("alone_loss_dpsh-1shot-seed0-8bits", "dpsh", "none"),
        ("alone_loss_csq-1shot-seed0-8bits", "csq", "none"),
        ("clora_loss_dpsh-1shot-seed0-8bits", "dpsh", "auto"),
        ("clora_loss_csq-1shot-seed0-8bits", "csq", "auto"),
    ]
    references = [given.reference_of(row) for row in given.rows]
    assert [row and row.name for row in references] == [None, None, "alone, loss dpsh", "alone, loss csq"]
    rates = {"lr": [None, 0.1]}  # no value is a value, too
    given = experiment(methods={"a": {"sweep": rates}, "b": {"sweep": rates, "reference": "a"}})
    references = [given.reference_of(row) for row in given.rows_of("b")]
    assert [row and row.name for row in references] == ["a, lr None", "a, lr 0.1"]


def test_a_base_has_its_settings_at_each_number_of_shots(tmp_path: Path) -> None:
    given = experiment(methods={"as published": {}, "one gamma": {"gamma": 5}}, shots=[1, 2, 4, 8], seeds=1)
    found = {(trial.row.name, trial.shots): trial.runs[0].config for trial in grid_of(given, tmp_path).trials}
    for shots in (1, 2, 4, 8):
        config, published = found["as published", shots], load_config("kalahash", shots)
        for key in ("rank", "adapter_scale", "alpha", "beta", "gamma", "class_words"):
            assert getattr(config, key) == getattr(published, key)
        assert (found["one gamma", shots].gamma, found["one gamma", shots].rank) == (5, published.rank)
    assert [found["as published", shots].gamma for shots in (1, 2, 4, 8)] == [3, 4, 2, 1]
    with pytest.raises(NestKALAError, match="has settings for 1, 2, 4, 8 shots, not for 3"):
        grid_of(experiment(shots=[3], methods={"a": {}}), tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "photos_baselines", "kalahash_losses"])
def test_rows_of_kalahash_have_the_settings_published_for_their_shots(name: str, tmp_path: Path) -> None:
    grid = grid_of(load_experiment(name), tmp_path)
    rows = [trial for trial in grid.trials if "KALAHash" in trial.row.name]
    assert rows
    for trial in rows:
        published = load_config("kalahash", trial.shots)
        for run in trial.runs:
            for key in ("rank", "adapter_scale", "alpha", "beta", "gamma", "class_words", "batch_norm", "head_init"):
                assert getattr(run.config, key) == getattr(published, key)


def test_fewer_shots_methods_and_seeds() -> None:
    given = experiment(methods={"a": {}, "b": {"reference": "a", "shots": [4]}, "c": {"shots": [0]}})
    fewer = given.restricted(seeds=1, shots=[4], methods=[])
    assert (fewer.seeds, list(fewer.methods), fewer.shots_of("a"), fewer.shots_of("b")) == (1, ["a", "b"], (4,), (4,))
    alone = given.restricted(seeds=None, shots=[], methods=["b"])
    assert (alone.seeds, list(alone.methods), alone.methods["b"].reference) == (2, ["b"], None)
    without = experiment(methods={"a": {"shots": [1]}, "b": {"reference": "a"}}).restricted(None, [4], [])
    assert [without.reference_of(row) for row in without.rows] == [None]
    with pytest.raises(NestKALAError, match="seeds must be 1 to 1000, not 0"):
        given.restricted(0, [], [])
    with pytest.raises(NestKALAError, match=r"unknown method in try 'd'.*\(known: a, b, c\)"):
        given.restricted(None, [], ["d"])
    with pytest.raises(NestKALAError, match=r"try has no runs at 2 shots \(known: 0, 1, 4\)"):
        given.restricted(None, [2], [])
    with pytest.raises(NestKALAError, match="none of the chosen methods runs at 1 shots"):
        given.restricted(None, [1], ["c"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tilte": "x"}, "unknown key 'tilte'; did you mean 'title'?"),
        ({"shots": []}, "shots"),
        ({"lengths": [0]}, "lengths.0 should be greater than or equal to 1, not 0"),
        (
            {"measures": ["mapp"]},
            "measures.0 should be 'map', 'map_tie_aware', 'copy_recall_at_1' or 'copy_recall_at_10', not 'mapp'",
        ),
        ({"name": "../x"}, "name"),
        ({"settings": {"adaptor": "none"}}, "unknown key 'settings.adaptor'; did you mean 'adapter'?"),
        ({"settings": {"seed": 1}}, "settings.seed: shots, lengths and seeds belong at the top level of the file"),
        ({"data": {"Digits": None}}, "data.Digits.data is missing"),
        ({"methods": {"a": {"data": "cifar10"}}}, "methods.a.data: images are set under data"),
        ({"settings": {"data": "cifar10"}}, "settings.data: images are set under data"),
        ({"methods": {"a": {"one_modle": True}}}, "unknown key 'methods.a.one_modle'; did you mean 'one_model'?"),
        (
            {"methods": {"a": {"lengths": [4]}}},
            "methods.a.lengths: shots, lengths and seeds belong at the top level of the file",
        ),
        ({"methods": {"frozen": {}, "b": {"reference": "frzen"}}}, "unknown method 'frzen'; did you mean 'frozen'?"),
        ({"methods": {"a": {"sweep": {"alpah": [1]}}}}, "unknown key 'methods.a.sweep.alpah'; did you mean 'alpha'?"),
        ({"methods": {"a": {"sweep": {"alpha": []}}}}, "methods.a.sweep must be one setting with at least one value"),
        ({"methods": {"a": {"sweep": {"alpha": [1], "beta": [1]}}}}, "methods.a.sweep must be one setting"),
        (
            {"tune": {"sweep": {"lr": [1], "beta": [1]}, "shots": 1}},
            "tune.sweep must be one setting with at least one value",
        ),
        ({"tune": {"sweep": {}, "shots": 1}}, "tune.sweep must be one setting with at least one value"),
        ({"tune": {"sweep": {"lrr": [1]}, "shots": 1}}, "unknown key 'tune.sweep.lrr'; did you mean 'lr'?"),
        ({"methods": {"a": {"sweep": {"alpha": [1]}}, "b": {"reference": "a"}}}, "'a' sweeps alpha, so b must too"),
    ],
)
def test_what_a_file_may_not_say(changes: dict[str, object], told: str) -> None:
    with pytest.raises(NestKALAError) as caught:
        experiment(**changes)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_settings_and_shared_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match="try, a on Digits, 1 shots: rank should be greater than or equal to 1"):
        grid_of(experiment(methods={"a": {"rank": 0}}), tmp_path)
    with pytest.raises(NestKALAError, match="unknown config 'kalahsh'; did you mean 'kalahash'"):
        grid_of(experiment(methods={"a": {"base": "kalahsh"}}), tmp_path)
    with pytest.raises(NestKALAError, match="'A B' and another name would share the folder a_b: rename one"):
        grid_of(experiment(methods={"A B": {}, "a+b": {}}), tmp_path)


def test_data_that_is_not_there(tmp_path: Path) -> None:
    given = experiment(data={"Digits": {"data": "digits"}, "NUS-WIDE": {"data": str(tmp_path / "nuswide")}})
    absent = absent_data(given, {})
    assert list(absent) == ["NUS-WIDE"]
    assert str(tmp_path / "nuswide") in absent["NUS-WIDE"]
    runs = make_grid(given, tmp_path, {}, absent, {}).runs
    assert {run.config.data for run in runs} == {"digits"}
    with pytest.raises(NestKALAError, match=r"try has no data .*--data 'Digits=FOLDER'"):
        absent_data(given, {"Digits": tmp_path / "none"})


def test_data_is_looked_for_where_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(grid_module, "load_dataset", lambda *where: asked.append(where))
    absent_data(experiment(settings={"data_root": str(tmp_path)}, data={"CIFAR-10": {"data": "cifar10"}}), {})
    assert asked == [("cifar10", tmp_path)]


def test_a_dry_run_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "elsewhere.yaml"
    file.write_text(
        f"{{title: x, base: digits, data: {{A: {{data: {tmp_path}/none}}}}, shots: [1], lengths: [8, 16], "
        "seeds: 2, methods: {a: {}}}"
    )
    assert main(["experiment", str(file), "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert "elsewhere: 0 of 4 runs are finished" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_means_spreads_bold_and_differences_against_statistics(tmp_path: Path) -> None:
    methods = {"a": {}, "b": {"reference": "a"}, "c|d": {"reference": "a", "one_model": True}}
    given = experiment(methods=methods, shots=[1], seeds=3, seconds=True)
    grid = grid_of(given, tmp_path)
    scores = {"a": [0.20, 0.23, 0.31], "b": [0.25, 0.26, 0.30], "c|d": [0.1, None, 0.2]}
    write(grid, scores)
    written = write_output(grid, tmp_path / "out", [], [])
    assert [path.name for path in written] == ["try.md", "try.tex", "try.json"]

    def told(values: list[float]) -> str:
        return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"

    page = written[0].read_text()
    for row, seconds in (("a", "6.0"), ("b", "6.0")):
        mean = [told([score + bits / 100 for score in scores[row]]) for bits in (4, 8, 6)]
        bold = [f"**{cell}**" for cell in mean] if row == "b" else mean
        difference = "" if row == "a" else "+2.3 ± 3.1"  # of 5, 3 and -1
        assert cells(page, row) == [*bold, difference, seconds]
    assert r"| c\|d | 1 of 3 diverged | 1 of 3 diverged | 1 of 3 diverged |" in re.sub(" +", " ", page)
    trials = json.loads(written[2].read_text())["trials"]
    assert len(trials) == 9
    assert trials[1]["lengths"]["8"]["map_tie_aware"] == pytest.approx(0.31)
    assert trials[7] == {**trials[7], "method": "c|d", "seed": 1, "lengths": {"4": None, "8": None}, "seconds": None}


def test_what_is_left_out_or_changed_is_said_in_both_texts(tmp_path: Path) -> None:
    grid = grid_of(experiment(shots=[4]), tmp_path)
    write(grid, {"frozen": [0.1, 0.2], "nested": [0.2, 0.3]})
    page, latex, scores = write_output(grid, tmp_path, ["epochs 5"], ["NUS-WIDE"])
    told = (
        "Backbone tiny; mean {} standard deviation over 2 seeds. Changed from the file: epochs 5. "
        "Skipped because the data was missing: NUS-WIDE."
    )
    assert told.format("±") in page.read_text()
    captions = re.findall(r"\\caption\{(.*)\}", latex.read_text())
    assert captions == [f"mAP tie-aware x 100, Digits, 4 shots. {told.format('$' + chr(92) + 'pm$')}"]
    assert json.loads(scores.read_text())["left_out"] == ["NUS-WIDE"]


def test_latex_is_escaped_and_whole(tmp_path: Path) -> None:
    methods = {r"50% of a_b & {c} #1 \x ~^$": {}, "other": {}}
    grid = grid_of(experiment(methods=methods, shots=[1], lengths=[8]), tmp_path)
    write(grid, dict(zip(methods, ([0.2, 0.2], [0.1, 0.1]), strict=True)))
    latex = write_output(grid, tmp_path, ["a_b"], [])[1].read_text()
    assert r"50\% of a\_b \& \{c\} \#1 \textbackslash{}x \textasciitilde{}\^{}\$" in latex
    assert r"\textbf{28.0 $\pm$ 0.0} \\" in latex
    assert r"Changed from the file: a\_b." in latex
    begun, ended = re.findall(r"\\begin\{(\w+)\}", latex), re.findall(r"\\end\{(\w+)\}", latex)
    assert begun == ["table", "tabular"] == ended[::-1]
    assert [rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1, 1]
    assert latex.isascii()


def test_sweeps_of_numbers_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    methods = {"alpha": {"sweep": {"alpha": [0.1, 1]}}, "loss": {"sweep": {"loss": ["dpsh", "csq"]}}}
    grid = grid_of(experiment(methods=methods, shots=[1]), tmp_path)
    write(grid, {row.name: [0.1, 0.2] for row in grid.experiment.rows})
    picture = write_output(grid, tmp_path, [], [])[-1]
    assert picture.name == "try.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_and_the_settings_of_its_runs_are_valid(name: str, tmp_path: Path) -> None:
    given = load_experiment(name)
    assert given.name == name
    runs = grid_of(given, tmp_path).runs
    assert len({run.folder for run in runs}) == len(runs) > 0


def test_the_documented_file_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    (tmp_path / "own.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    given = load_experiment(str(tmp_path / "own.yaml"))
    ranks = ["rank, rank 1", "rank, rank 2", "rank, rank 4"]
    assert [row.name for row in given.rows] == ["KALAHash", "frozen", "NestKALA", *ranks]
    assert grid_of(given, tmp_path).runs
    for name in SHIPPED:
        assert f"| `{name}` |" in page


def test_shipped_files_come_with_the_package() -> None:
    folder = Path(__file__).parents[2] / "configs" / "experiments"
    assert sorted(SHIPPED) == sorted(path.stem for path in folder.glob("*.yaml"))
    assert files("nestkala.configs.experiments").joinpath("cifar10.yaml").is_file()


FILE = """
title: Features
base: kalahash
settings: {backbone: "features:8", adapter: none, anchors: orthonormal, batch_size: 4, epochs: 2, workers: 0}
data: {Own: {data: nowhere, queries_per_class: 3}}
shots: [4]
lengths: [4, 8]
seeds: 2
methods:
  one by one:
  nested: {one_model: true, lr: 0.5}
  too fast: {one_model: true, lr: 1.0e+30}
"""


def write_features() -> None:
    """A folder `features` of own features, of three classes."""
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    Path("features").mkdir()
    np.save("features/features.npy", rng.normal(size=(3, 8))[labels] + 0.3 * rng.normal(size=(60, 8)))
    np.save("features/labels.npy", labels)


def test_the_command_runs_a_file_once_and_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features()
    Path("own.yaml").write_text(FILE)

    assert main(["experiment", "own.yaml"]) == 2
    assert "own has no data (Own: " in capsys.readouterr().err
    assert main(["experiment", "own.yaml", "--data", "Onw=features"]) == 2
    assert "unknown data set 'Onw'; did you mean 'Own'?" in capsys.readouterr().err
    assert main(["experiment", "own.yaml", "--data", "features"]) == 2
    assert "--data takes NAME=FOLDER, not 'features'" in capsys.readouterr().err
    assert main(["experiment", "cifar11"]) == 2
    assert "unknown experiment 'cifar11'; did you mean 'cifar10'?" in capsys.readouterr().err

    assert main(["experiment", "own.yaml", "./own.yaml", "--data", "Own=features"]) == 2
    assert "2 files share the name own" in capsys.readouterr().err

    command = ["experiment", "own.yaml", "--data", "Own=features"]
    assert main([*command, "--dry-run"]) == 0
    assert "own: 0 of 8 runs are finished" in capsys.readouterr().out
    assert main(command) == 0
    page = Path("runs/experiments/own.md").read_text()
    assert "2 of 2 diverged" in cells(page, "too fast")
    metrics = [path for path in Path("runs").rglob("metrics.json") if "one_by_one-4shot-seed" in str(path)]
    at_eight = [json.loads(path.read_text())["lengths"].get("8", {}).get("map_tie_aware") for path in metrics]
    best = 100 * statistics.mean(score for score in at_eight if score is not None)
    assert cells(page, "one by one")[1].strip("*").startswith(f"{best:.1f} ± ")

    gone = next(path for path in Path("runs").rglob("metrics.json") if "nested-4shot-seed1" in str(path))
    gone.unlink()
    again, train = [], run_module.train
    monkeypatch.setattr(run_module, "train", lambda config, **to: (again.append(config.resume), train(config, **to)))
    assert main(command) == 0
    assert again == [gone.parent]
    assert Path("runs/experiments/own.md").read_text() == page

    assert main([*command, "--epochs", "3"]) == 2
    assert "holds a run with epochs 2, not 3: choose another --runs" in capsys.readouterr().err


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    run = grid_of(experiment(), tmp_path).runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(dump_config(run.config))
    run.check()
    (run.folder / "config.yaml").write_text(dump_config(run.config.model_copy(update={"lr": 0.5})))
    with pytest.raises(NestKALAError, match=r"holds a run with lr 0\.5, not None: choose another --runs"):
        run.check()


def test_what_runs_share_is_left_out_where_it_has_no_effect(tmp_path: Path) -> None:
    """Of the base, of the settings, and of a length that is alone; and a run's own settings are not."""
    methods = {
        "trained": {"base": "photos", "one_model": True},
        "closed form": {"base": "photos", "one_model": True, "epochs": 0},
        "frozen": {"adapter": "none", "loss": "dpsh"},
        "alone": {"base": "mah", "head": "flat", "loss": "csq"},
    }
    given = experiment(settings={"lr": 0.5, "epochs": 3, "backbone": "tiny"}, methods=methods, seeds=1, shots=[4])
    configs = {run.folder.name.split("-")[0]: run.config for run in grid_of(given, tmp_path).runs}
    assert {name: (config.lr, config.epochs) for name, config in configs.items()} == {
        "trained": (0.5, 3),
        "closed_form": (None, 0),
        "frozen": (0.5, 3),
        "alone": (0.5, 3),
    }
    assert "adapter_init" not in configs["frozen"].model_fields_set
    assert (configs["alone"].weighting, configs["alone"].lengths) == ("auto", (8,))
    for own in ({"adapter": "none", "rank": 2}, {"loss": "dsh", "alpha": 1}, {"distillation": 0.5}, {"data_root": "x"}):
        with pytest.raises(NestKALAError, match=r"no effect|are set under data"):
            grid_of(experiment(methods={"a": own}), tmp_path)


def test_shots_beside_a_split_are_a_name_alone(tmp_path: Path) -> None:
    given = experiment(data={"Digits": {"data": "digits", "split": "s.json"}}, methods={"a": {}}, shots=[4], seeds=1)
    (first, _) = grid_of(given, tmp_path).runs
    assert (first.folder.name, first.config.shots) == ("a-4shot-seed0-4bits", None)


def test_a_shared_setting_without_any_effect_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in SHIPPED:
        check_shared(load_experiment(name))
    with pytest.raises(
        NestKALAError, match=r"try: settings.prompt_length has no effect on any of the methods: remove it"
    ):
        check_shared(experiment(settings={"prompt_length": 4}))
    check_shared(experiment(settings={"prompt_length": 4}, methods={"a": {}, "b": {"adapter": "prompts"}}))
    file = tmp_path / "own.yaml"
    of_digits = "{title: x, base: photos, data: {A: {data: digits}}, shots: [1], lengths: [8], methods: {a: {}}"
    file.write_text(of_digits + ", settings: {prompt_length: 4}}")
    assert main(["experiment", str(file), "--dry-run"]) == 2
    assert "settings.prompt_length has no effect" in capsys.readouterr().err
    file.write_text(of_digits + "}")
    assert main(["experiment", str(file), "--dry-run", "--epochs", "5"]) == 2
    assert "--epochs 5 has no effect: no run of own trains" in capsys.readouterr().err
    assert main(["experiment", str(file), "--dry-run", "--data", "A=x", "A=y"]) == 2
    assert "--data gives a data set twice: A=x A=y" in capsys.readouterr().err


def test_a_setting_is_tuned_on_other_queries_and_what_diverges_is_never_the_best(tmp_path: Path) -> None:
    methods = {"a": None, "b": {"one_model": True, "reference": "a"}, "own": {"lr": 0.5}}
    tune = {"sweep": {"lr": [0.001, 0.1, 1.0]}, "shots": 2, "lengths": [8]}
    given = experiment(methods=methods, lengths=[4, 8], seeds=2, tune=tune, settings={"head_init": "random"})
    single, whole = (grid_of(one, tmp_path) for one in given.tuning)
    assert [list(grid.experiment.methods) for grid in (single, whole)] == [["a"], ["b"]]
    assert [(run.config.lr, run.config.lengths) for run in single.runs] == [(lr, (8,)) for lr in (0.001, 0.1, 1)]
    assert [(run.config.lr, run.config.lengths) for run in whole.runs] == [(lr, (4, 8)) for lr in (0.001, 0.1, 1)]
    for run in (*single.runs, *whole.runs):
        assert (run.config.labels_per_class, run.config.protocol_seed, run.folder.parts[-3]) == (2, 1, "try-tuning")
    scores = {"a": [0.2, 0.1, None], "b": [0.1, 0.3, 0.2]}
    for grid in (single, whole):
        for run, score in zip(grid.runs, scores[next(iter(grid.experiment.methods))], strict=True):
            run.folder.mkdir(parents=True)
            if score is None:
                (run.folder / "diverged.txt").write_text("the loss is not finite")
                continue
            lengths = {str(bits): {"map": score, "map_tie_aware": score} for bits in run.config.lengths}
            (run.folder / "metrics.json").write_text(json.dumps({"lengths": lengths, "seconds": {"train": 1.0}}))
    chosen = grid_of(tuned(given, (single, whole)), tmp_path)
    rates = {trial.row.method: {run.config.lr for run in trial.runs} for trial in chosen.trials}
    assert rates == {"a": {0.001}, "b": {0.1}, "own": {0.5}}
    assert {run.config.protocol_seed for run in chosen.runs} == {0}


def test_the_command_tunes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features()
    Path("own.yaml").write_text(FILE.replace("methods:", "tune: {sweep: {lr: [0.01, 1.0e+30]}, shots: 2}\nmethods:"))
    command = ["experiment", "own.yaml", "--data", "Own=features", "--only", "one by one"]
    assert main([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "own-tuning: 0 of 4 runs are finished" in said
    assert "own: its own runs are listed once these are finished" in said
    assert main(command) == 0
    page = Path("runs/experiments/own.md").read_text()
    assert "lr was tuned over 0.01, 1e+30 at 2 shots, on other queries." in page
    assert "\n\n- lr 0.01: one by one\n\n" in page
    assert json.loads(Path("runs/experiments/own.json").read_text())["settings"] == {"one by one": {"lr": 0.01}}
