"""Many training runs for a table: each in its own folder, resumed where it stopped, never repeated."""

import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from ..settings.checks import FREE_ON_RESUME
from ..settings.config import Config
from ..settings.loading import load_config
from ..training.metrics_file import load_metrics
from ..training.run import train
from ..training.run_folder import InUseError, held
from ..utils.errors import DivergedError, NestKALAError, one_line
from ..utils.files import write_text
from ..utils.processes import from_main_process

_PAUSE = 1.0
"""Seconds between checks whether another process has finished a run."""


@dataclass(frozen=True)
class Run:
    """A training run and its folder.

    Attributes:
        config: its settings, except `output`.
        folder: its run folder.
    """

    config: Config
    folder: Path

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / "metrics.json").exists() or self.has_diverged

    @property
    def has_diverged(self) -> bool:
        """Whether its loss became non-finite."""
        return (self.folder / "diverged.txt").exists()

    @property
    def metrics(self) -> dict[str, Any]:
        """The contents of a finished run's metrics.json (`nestkala.training.metrics_file.RunMetrics`).

        Raises:
            NestKALAError: if the run diverged, is not finished or has no scores, or the file is damaged; says where.
        """
        if self.has_diverged:
            raise NestKALAError(f"{self.folder}: {(self.folder / 'diverged.txt').read_text(encoding='utf-8').strip()}")
        metrics = load_metrics(self.folder)
        if metrics is None:
            raise NestKALAError(f"{self.folder} is not finished")
        if not any("map" in scores for scores in metrics.lengths.values()):
            raise NestKALAError(f"{self.folder} has no scores, because it has no queries")
        return asdict(metrics)

    def check(self) -> None:
        """Raise NestKALAError if the folder holds a run with other settings."""
        if not (self.folder / "config.yaml").exists():
            return
        theirs = load_config(str(self.folder / "config.yaml"))
        for key in Config.model_fields.keys() - (FREE_ON_RESUME - {"epochs"}) - {"output"}:
            found, asked = getattr(theirs, key), getattr(self.config, key)
            if (key, asked) == ("backbone", "auto"):  # the folder records the chosen one
                continue
            if found != asked:
                raise NestKALAError(f"{self.folder} holds a run with {key} {found}, not {asked}: choose another --runs")

    def finish(self) -> None:
        """Train and score, from the last checkpoint if there is one; a run whose loss diverges is finished too.

        Raises:
            InUseError: if another process is using this run.
            NestKALAError: for any other error, with the folder.
        """
        with ExitStack() as until_then:
            begin = from_main_process(lambda: self._prepared(until_then))
            if begin is None:
                return
            try:
                with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    train(self.config.model_copy(update={begin: self.folder}), is_held=True)
            except DivergedError as error:
                write_text(self.folder / "diverged.txt", one_line(error) + "\n")
            except NestKALAError as error:
                raise NestKALAError(f"{self.folder}: {error}") from error

    def _prepared(self, until: ExitStack) -> Literal["output", "resume"] | None:
        """Hold the folder and return whether to start or resume the run; None if another process finished it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        until.enter_context(held(self.folder))
        if self.is_finished:
            return None
        if (self.folder / "checkpoint.safetensors").exists():
            return "resume"
        for path in self.folder.iterdir():  # left by a run that was stopped early
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return "output"


def finish(runs: Iterable[Run]) -> None:
    """Finish all unfinished runs, showing progress and the current run.

    Runs that another process is working on, such as the same command started twice, are left to it, and awaited at
    the end.

    Raises:
        NestKALAError: if a folder holds a run with other settings, or a run fails.
    """
    runs = list(runs)
    for run in runs:
        run.check()
    missing = deque(run for run in runs if not run.is_finished)
    done, busy = len(runs) - len(missing), 0
    bar: tqdm[Any]
    with tqdm(total=len(runs), initial=done, desc="runs", unit="run", disable=not missing) as bar, refreshed(bar):
        while missing:
            run = missing.popleft()
            bar.set_postfix_str(run.folder.name)
            try:
                run.finish()
            except InUseError:
                missing.append(run)
                busy += 1
                if busy >= len(missing):
                    bar.set_postfix_str("waiting for another process")
                    time.sleep(_PAUSE)
                    busy = 0
                continue
            busy = 0
            bar.update()


@contextmanager
def refreshed(bar: "tqdm[Any]", seconds: float = 1.0) -> Iterator[None]:
    """Keep the clock of a terminal's progress bar running, updating it every so many seconds."""
    if bar.disable or not bar.fp.isatty():  # in a file every update would be a line
        yield
        return
    done = Event()

    def refresh() -> None:
        while not done.wait(seconds):
            bar.refresh()

    thread = Thread(target=refresh, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def mean_and_spread(values: Iterable[float], sign: str = "") -> str:
    """Mean and sample standard deviation (0 for one value) of scores in 0..1, times 100, such as `31.9 ± 0.4`.

    With `sign="+"` a positive mean gets a sign as well, as in differences.
    """
    scores = 100 * np.fromiter(values, float)
    return f"{scores.mean():{sign}.1f} ± {scores.std(ddof=1) if len(scores) > 1 else 0:.1f}"
