"""The runs behind an experiment's tables, and their scores."""

import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import load_dataset
from ..settings.config import Config, without_inapplicable
from ..settings.loading import read_base
from ..utils.errors import NestKALAError
from .runs import Run
from .schema import GRID_KEYS, Experiment, Row, Settings

DATA_KEYS = {
    *("data", "data_root", "split", "queries", "queries_per_class", "train_pool", "protocol_seed", "top_k"),
    *("archive", "classes", "on_broken"),
}
"""Settings that belong to a data set: those of a base config are ignored."""


@dataclass(frozen=True)
class Trial:
    """One method on one data set, with one number of shots and one seed.

    Attributes:
        data: name of the data set.
        shots: labeled images per class.
        row: row of the tables.
        seed: seed of the runs.
        runs: one for all lengths, or one per length.
    """

    data: str
    shots: int
    row: Row
    seed: int
    runs: tuple[Run, ...]

    @cached_property
    def scores(self) -> dict[str, dict[str, float]]:
        """{bits: {measure: value in 0..1}} of the finished runs; lengths whose run diverged are missing."""
        return {
            bits: scores for run in self.runs if not run.has_diverged for bits, scores in run.metrics["lengths"].items()
        }

    @property
    def seconds(self) -> float:
        """Seconds of training, all lengths together; nan if a run diverged."""
        if any(run.has_diverged for run in self.runs):
            return float("nan")
        return float(sum(run.metrics["seconds"]["train"] for run in self.runs))


@dataclass(frozen=True)
class Grid:
    """An experiment's trials.

    Attributes:
        experiment: the experiment.
        trials: all its trials, in the order of the tables.
    """

    experiment: Experiment
    trials: tuple[Trial, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of all trials."""
        return [run for trial in self.trials for run in trial.runs]

    def of(self, data: str, shots: int, row: Row) -> list[Trial]:
        """The trials of one row of a table, by seed."""
        return [trial for trial in self.trials if (trial.data, trial.shots, trial.row) == (data, shots, row)]

    def scores(self, data: str, shots: int, row: Row, measure: str) -> NDArray[np.float64]:
        """(seeds, lengths), each in 0..1; nan where a run diverged."""
        found = [trial.scores for trial in self.of(data, shots, row)]
        lengths = [str(bits) for bits in self.experiment.lengths]
        return np.array([[of.get(bits, {}).get(measure, np.nan) for bits in lengths] for of in found])

    def as_json(self) -> list[dict[str, Any]]:
        """Every trial: its place in the tables, scores by length (None if the run diverged) and seconds."""
        return [
            {
                "data": trial.data,
                "shots": trial.shots,
                "method": trial.row.method,
                "value": trial.row.value,
                "seed": trial.seed,
                "lengths": {str(bits): trial.scores.get(str(bits)) for bits in self.experiment.lengths},
                "seconds": None if np.isnan(trial.seconds) else trial.seconds,
            }
            for trial in self.trials
        ]


def absent_data(experiment: Experiment, folders: Mapping[str, Path]) -> dict[str, str]:
    """{name: reason} for the data sets that are not on this machine.

    Args:
        experiment: experiment that uses them.
        folders: data sets that are in another place than the file says.

    Raises:
        NestKALAError: if none is there; says what to do.
    """
    reasons = {
        name: _why_absent(experiment.settings | _data_settings(experiment, name, folders)) for name in experiment.data
    }
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    if len(absent) == len(reasons):
        told = "; ".join(f"{name}: {reason}" for name, reason in absent.items())
        say = f"give its place with --data '{next(iter(absent))}=FOLDER'"
        raise NestKALAError(f"{experiment.name} has no data ({told}): {say}")
    return absent


def make_grid(
    experiment: Experiment,
    folder: Path,
    folders: Mapping[str, Path],
    absent: Container[str],
    overrides: Settings,
) -> Grid:
    """The grid on the available data sets.

    Args:
        experiment: the experiment to run.
        folder: folder for the run folders.
        folders: data sets that are in another place than the file says.
        absent: names of data sets to skip.
        overrides: settings that take precedence over the file's; `epochs` does not apply to what is not trained.

    Raises:
        NestKALAError: if settings are impossible, or two rows have the same folder name; says which.
    """
    present = [name for name in experiment.data if name not in absent]
    shots = sorted({count for method in experiment.methods for count in experiment.shots_of(method)})
    rows = experiment.rows
    _check_folder_names([row.name for row in rows])
    _check_folder_names(present)
    base_of = {row.method: experiment.methods[row.method].base or experiment.base for row in rows}
    bases: dict[tuple[str, int], Settings] = {}
    trials = []
    for data, count, row in product(present, shots, rows):
        if count in experiment.shots_of(row.method):
            base = base_of[row.method], count
            if base not in bases:
                bases[base] = _base_settings(*base)
            one_model, where = experiment.methods[row.method].one_model, folder / experiment.name / _folder_name(data)
            lengths = experiment.lengths if one_model else experiment.lengths[:1]
            shared = bases[base] | experiment.settings | _data_settings(experiment, data, folders)
            shared |= {"shots": count, "lengths": lengths}
            called = f"{experiment.name}, {row.name} on {data}, {count} shots"
            config = _config(called, shared, row.settings, overrides)
            for seed in range(experiment.seeds):
                name = where / f"{_folder_name(row.name)}-{count}shot-seed{seed}"
                runs = _runs(config.model_copy(update={"seed": seed}), experiment.lengths, one_model, name)
                trials.append(Trial(data, count, row, seed, runs))
    return Grid(experiment, tuple(trials))


def check_shared(experiment: Experiment) -> None:
    """Raise NestKALAError if a setting shared by all runs has no effect on any of them."""
    rows = experiment.rows
    unused = set(experiment.settings)
    for row, data in product(rows, experiment.data):
        method = experiment.methods[row.method]
        lengths = experiment.lengths if method.one_model else experiment.lengths[:1]
        for count in experiment.shots_of(row.method):
            if not unused:
                return
            shared = _base_settings(method.base or experiment.base, count) | experiment.settings
            shared |= experiment.data[data] | {"shots": count, "lengths": lengths}
            config = _config(f"{experiment.name}, {row.name}", shared, row.settings, {})
            unused -= config.model_fields_set
    if unused:
        raise NestKALAError(f"{experiment.name}: settings.{min(unused)} has no effect on any of the methods: remove it")


def _base_settings(name: str, shots: int) -> Settings:
    """A config's settings at a number of shots, except data, shots and lengths."""
    base = read_base(name, shots)
    return {key: getattr(base, key) for key in base.model_fields_set - DATA_KEYS - GRID_KEYS}


def _config(called: str, shared: Settings, own: Settings, overrides: Settings) -> Config:
    """A method's settings: its own must have an effect; those shared with others apply where they can."""
    values = shared | own
    try:
        if "epochs" in overrides and without_inapplicable(values, shared.keys() - own.keys()).num_epochs == 0:
            overrides = {key: value for key, value in overrides.items() if key != "epochs"}
        values |= overrides
        return without_inapplicable(values, (shared.keys() - own.keys()) | overrides.keys())
    except NestKALAError as error:
        raise NestKALAError(f"{called}: {error}") from None


def _runs(config: Config, lengths: Sequence[int], one_model: bool, name: Path) -> tuple[Run, ...]:
    if one_model:
        return (Run(config, name.with_name(f"{name.name}-all")),)
    return tuple(
        Run(config.model_copy(update={"lengths": (bits,)}), name.with_name(f"{name.name}-{bits}bits"))
        for bits in lengths
    )


def _data_settings(experiment: Experiment, name: str, folders: Mapping[str, Path]) -> Settings:
    elsewhere = {"data": str(folders[name].expanduser().absolute())} if name in folders else {}
    return experiment.data[name] | elsewhere


def _why_absent(settings: Settings) -> str | None:
    data, root = str(settings["data"]), Path(settings.get("data_root", Config.model_fields["data_root"].default))
    try:
        load_dataset(data, root)
    except NestKALAError as error:
        if data != "cifar10" and Path(data).expanduser().exists():
            raise
        return str(error)
    return None


def _folder_name(name: str) -> str:
    """A name as a folder name: letters, digits and dots."""
    return re.sub(r"[^\w.]+", "_", name.lower()).strip("_.")


def _check_folder_names(names: Sequence[str]) -> None:
    counts = Counter(map(_folder_name, names))
    for name in names:
        if counts[_folder_name(name)] > 1:
            raise NestKALAError(f"'{name}' and another name would share the folder {_folder_name(name)}: rename one")
