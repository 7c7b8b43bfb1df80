"""`nestkala experiment`."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ..settings.arguments import comma_separated
from ..utils.errors import NestKALAError, unknown_name

if TYPE_CHECKING:
    from ..experiments import Experiment as ExperimentFile
    from ..experiments import Grid


@dataclass(frozen=True)
class Experiment:
    """Run the experiments described in YAML files and write tables of the results.

    Tables are written as Markdown, LaTeX and JSON. Every run is kept: after an interruption, the same command resumes
    and repeats nothing that is finished.
    """

    files: Positional[Annotated[tuple[str, ...], arg(metavar="FILE")]]
    """names of built-in experiments (see docs/experiments.md) or paths to YAML files"""

    data: Annotated[tuple[str, ...], arg(metavar="NAME=FOLDER")] = ()
    """locations of the file's data sets on this machine; missing data sets are reported and skipped"""

    backbone: str | None = None
    """backbone for all runs, overriding the file"""

    epochs: int | None = None
    """number of epochs for all runs that train, overriding the file"""

    seeds: int | None = None
    """number of seeds, overriding the file"""

    shots: Annotated[tuple[int, ...], comma_separated(int, "SHOTS,SHOTS,...")] = ()
    """run only these shot counts from the file"""

    only: Annotated[tuple[str, ...], arg(metavar="METHOD")] = ()
    """run only these methods from the file"""

    runs: Path = Path("runs/experiments")
    """folder that holds the run folders"""

    output: Path | None = None
    """folder to write the tables to (default: the folder given by --runs)"""

    dry_run: bool = False
    """list the runs and their status without running anything"""

    def run(self) -> None:
        from ..experiments import check_shared, load_experiment

        if not self.files:
            raise NestKALAError("give one or more experiment files")
        experiments = [load_experiment(name) for name in self.files]
        for name, number in Counter(experiment.name for experiment in experiments).items():
            if number > 1:
                raise NestKALAError(
                    f"{number} files share the name {name}, and so would their tables: give one of them"
                )
        for experiment in experiments:
            check_shared(experiment)
        folders = dict(self._folder(word, experiments) for word in self.data)
        if len(folders) < len(self.data):
            raise NestKALAError(f"--data gives a data set twice: {' '.join(self.data)}")
        restricted = [experiment.restricted(self.seeds, self.shots, self.only) for experiment in experiments]
        for experiment in restricted:
            self._run(experiment, folders)

    def _folder(self, word: str, experiments: "list[ExperimentFile]") -> tuple[str, Path]:
        name, _, folder = word.partition("=")
        if not folder:
            raise NestKALAError(f"--data takes NAME=FOLDER, not '{word}'")
        known = {name for experiment in experiments for name in experiment.data}
        if name not in known:
            raise unknown_name("data set", name, known)
        return name, Path(folder)

    def _run(self, experiment: "ExperimentFile", folders: dict[str, Path]) -> None:
        from ..experiments import absent_data, finish, make_grid, tuned, write_output
        from ..utils.files import check_writable

        absent = {} if self.dry_run else absent_data(experiment, folders)
        for name, reason in absent.items():
            print(
                f"{experiment.name}: skipping {name}: {reason}; give its location with --data '{name}=FOLDER'",
                file=sys.stderr,
            )
        given = {"backbone": self.backbone, "epochs": self.epochs}
        overrides = {key: value for key, value in given.items() if value is not None}
        tuning = [make_grid(first, self.runs, folders, absent, overrides) for first in experiment.tuning]
        for grid in tuning:
            if self.dry_run:
                print(_listing(grid))
            else:
                finish(grid.runs)
        if not all(run.is_finished for grid in tuning for run in grid.runs):
            print(f"{experiment.name}: its own runs are listed once these are finished")
            return
        experiment = tuned(experiment, tuning)
        grid = make_grid(experiment, self.runs, folders, absent, overrides)
        alone = len(self.files) == 1
        if alone and self.epochs is not None and all(run.config.epochs != self.epochs for run in grid.runs):
            raise NestKALAError(f"--epochs {self.epochs} has no effect: no run of {experiment.name} trains")
        if self.dry_run:
            print(_listing(grid))
            return
        check_writable((self.output or self.runs) / f"{experiment.name}.md")
        finish(grid.runs)
        changes = [f"{key} {value}" for key, value in overrides.items()]
        if self.shots:
            changes.append(f"only at {', '.join(map(str, self.shots))} shots")
        if self.only:
            changes.append(f"only the methods {' / '.join(self.only)}")
        for path in write_output(grid, self.output or self.runs, changes, absent):
            print(path)


def _listing(grid: "Grid") -> str:
    """One line per run, and how many are finished."""
    states = ["diverged" if run.has_diverged else "finished" if run.is_finished else "to do" for run in grid.runs]
    lines = [f"{state:8}  {run.folder}" for run, state in zip(grid.runs, states, strict=True)]
    done = sum(state != "to do" for state in states)
    return "\n".join([*lines, f"{grid.experiment.name}: {done} of {len(lines)} runs are finished"])
