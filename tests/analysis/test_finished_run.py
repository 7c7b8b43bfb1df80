"""Scores of a finished run against a slow way to the same numbers, from images and class names."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from nestkala import Hasher
from nestkala.analysis.finished_run import FinishedRun, score_run
from nestkala.cli import main
from nestkala.codes import unpack
from nestkala.settings.config import Config
from nestkala.settings.loading import load_config
from nestkala.training.run import train


@pytest.fixture(scope="module")
def run(noise_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of class names and images of noise, 24 of them, half a class each."""
    small = {"queries": 6, "shots": 3, "lengths": (4, 20), "epochs": 1, "batch_size": 3, "workers": 0, "cache_gb": 0}
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train(Config(data=str(noise_model.parent / "images"), output=folder, **small))


def average_precision(relevant: np.ndarray) -> float:
    places = np.flatnonzero(relevant)
    return float(np.mean([(n + 1) / (place + 1) for n, place in enumerate(places)])) if len(places) else 0.0


def expected_map(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> float:
    """Tie-aware mAP by 4,000 shuffles, of codes in +-1."""
    rng, distances = np.random.default_rng(0), -(queries @ gallery.T)
    found = []
    for _ in range(4000):
        order = rng.permutation(gallery.shape[0])
        for distance, row in zip(distances, relevant, strict=True):
            ranked = order[np.argsort(distance[order], kind="stable")]
            found.append(average_precision(row[ranked]))
    return float(np.mean(found))


def test_scores_are_those_of_codes_made_one_by_one(run: Path) -> None:
    hasher, codes = Hasher.from_pretrained(run, "cpu"), FinishedRun.open(run).encode()
    names = json.loads((run / "split.json").read_text())
    images = Path(codes.config.data)
    query, gallery = ([images / name for name in names[part]] for part in ("query", "gallery"))

    def labels(paths: list[Path]) -> np.ndarray:
        return np.array([hasher.class_names.index(path.parent.name) for path in paths])

    for bits, scores in zip((3, 20), score_run(codes, (3, 20)), strict=True):
        q, g, t = (
            unpack(packed, bits).astype(int)
            for packed in (hasher.encode(query, bits), hasher.encode(gallery, bits), hasher.class_codes(bits))
        )
        assert scores.bits == bits
        same = labels(query)[:, None] == labels(gallery)
        assert scores.map_tie_aware == pytest.approx(expected_map(q, g, same), abs=0.01)
        relevant = [same[q][np.argsort(-(q_codes @ g.T), kind="stable")] for q, q_codes in enumerate(q)]
        assert len(relevant[0]) == 18
        assert scores.precision_at_100 is None  # there are no 100
        within = [same[n][q[n] @ g.T >= bits - 4] for n in range(len(q))]
        assert scores.precision_within_2 == pytest.approx(np.mean([row.mean() if len(row) else 0 for row in within]))
        exact, near = ([same[n][q[n] @ g.T >= bits - 2 * r] for n in range(len(q))] for r in (0, 1))
        means = [np.mean([row.mean() if len(row) else 0 for row in rows]) for rows in (exact, near, within)]
        costs = [1, 1 + bits, 1 + bits + bits * (bits - 1) / 2]
        assert scores.ramap_at_2 == pytest.approx(sum(m / c for m, c in zip(means, costs, strict=True)) / 3)
        assert scores.map_interval[0] < scores.map_tie_aware < scores.map_interval[1]
        named = np.arange(len(t))[:, None] == labels(gallery)
        assert scores.text_map_tie_aware == pytest.approx(expected_map(t, g, named), abs=0.01)
        h = hasher.relaxed(query, bits=bits)
        nearest = [int(np.argmax([row @ code for code in t])) for row in h]
        assert scores.accuracy == pytest.approx(np.mean(nearest == labels(query)))


def test_the_command_repeats_what_training_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["run"] == str(run)
    scores = answer["lengths"]
    metrics = json.loads((run / "metrics.json").read_text())["lengths"]
    trained = ("map", "map_tie_aware", "copy_recall_at_1", "copy_recall_at_10")
    assert {str(each["bits"]): {key: each[key] for key in trained} for each in scores} == metrics
    assert main(["eval", str(run), "--lengths", "7,3"]) == 0
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == ["7", "3"]
    (three,) = score_run(FinishedRun.open(run).encode(), (3,))
    low, _, high = rows[3].pop(3).split()
    assert (float(low), float(high)) == pytest.approx(three.map_interval, abs=5e-4)
    left_out = ("bits", "map_interval", "precision_at_100")
    expected = [value for name, value in asdict(three).items() if name not in left_out]
    assert [float(cell) for cell in rows[3][1:]] == pytest.approx(expected, abs=5e-5)


@pytest.fixture(scope="module")
def second_seed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_config(str(run / "config.yaml"))
    return train(config.model_copy(update={"seed": 1, "output": tmp_path_factory.mktemp("finished") / "second"}))


def test_of_several_seeds_mean_and_deviation_are_shown(
    run: Path, second_seed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), str(second_seed), "--lengths", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "mean ± standard deviation of 2 runs"
    assert lines[-2].startswith("chance level of the mAP: ")
    assert len(lines) == 5
    one, other = (score_run(FinishedRun.open(folder).encode(), (9,))[0].map for folder in (run, second_seed))
    cell = lines[2].strip("|").split("|")[1].strip()
    assert cell == f"{(one + other) / 2:.4f} ± {abs(one - other) / 2**0.5:.4f}"
    assert main(["eval"]) == 2
    assert "give one or more run folders" in capsys.readouterr().err


def test_unrelated_runs_are_not_pooled(
    run: Path, second_seed: Path, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of other settings, and of another data set, have tables of their own."""
    shutil.copytree(noise_model.parent / "images", tmp_path / "images")
    config = load_config(str(run / "config.yaml"))
    elsewhere = train(config.model_copy(update={"data": str(tmp_path / "images"), "output": tmp_path / "run"}))
    capsys.readouterr()
    for other in (noise_model, elsewhere):
        assert main(["eval", str(run), str(other), str(second_seed), "--lengths", "9"]) == 0
        shown = capsys.readouterr().out
        seeds, alone = shown.split("\n\n")
        assert "mean ± standard deviation of 2 runs" in seeds
        assert "mean" not in alone
        score = score_run(FinishedRun.open(other).encode(), (9,))[0]
        assert alone.splitlines()[3].strip("|").split("|")[1].strip() == f"{score.map:.4f}"
        if other == elsewhere:
            names = [part.splitlines()[0] for part in (seeds, alone)]
            assert names == [f"data {config.data}", f"data {tmp_path / 'images'}"]


def test_one_run_given_twice_is_told_before_anything_is_encoded(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FinishedRun, "encode", pytest.fail)
    assert main(["eval", str(run), str(run)]) == 2
    assert "have the same settings and seed" in capsys.readouterr().err


def test_a_model_without_text_codes_has_scores_of_images_alone(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"queries": 6, "shots": 3, "lengths": (4, 20), "epochs": 1, "batch_size": 3, "workers": 0, "cache_gb": 0}
    images = str(noise_model.parent / "images")
    run = train(Config(data=images, output=tmp_path / "run", head_init="random", loss="dpsh", **small))
    assert not Hasher.from_pretrained(run, "cpu").spec.has_text_codes
    capsys.readouterr()
    assert main(["eval", str(run)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [line.strip("|").split("|") for line in shown[2:]]
    assert [[cell.strip() for cell in row[8:]] for row in rows] == [["-", "-"], ["-", "-"]]
    assert all(0 <= float(row[1]) <= 1 for row in rows)


def test_where_training_searched_learned_codes_it_is_told(
    noise_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = {"queries": 6, "shots": 6, "lengths": (4, 20), "epochs": 3, "batch_size": 6, "workers": 0, "cache_gb": 0}
    images = str(noise_model.parent / "images")
    learned = {"loss": "adsh", "gallery": "labeled", "head_init": "random"}
    run = train(Config(data=images, output=tmp_path / "run", **learned, **small))
    assert main(["eval", str(run), "--json"]) == 0
    assert "searched learned codes for the gallery; here they come from the network" in caplog.text
    caplog.clear()
    assert main(["eval", str(noise_model), "--json"]) == 0
    assert not caplog.text


@pytest.mark.parametrize("lengths", ["21", "8,0"])
def test_lengths_that_there_are_not_are_told_before_anything_is_encoded(
    run: Path, lengths: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(run), "--lengths", lengths]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert f"{lengths.split(',')[-1]}" in error
    assert "1 to 20" in error
    assert error.count("\n") == 1


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(tmp_path)]) == 2
    assert "is not a run folder: it contains no config.yaml" in capsys.readouterr().err
