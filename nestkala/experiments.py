"""Many training runs for a table: each in its own folder, resumed where it stopped, never repeated."""

import json
import shutil
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .config import Config
from .errors import DivergedError, NestKALAError, one_line
from .files import write_text
from .run import train


def finish(runs: Iterable[Config]) -> None:
    """Train and score those of the runs that are not finished, each from its last checkpoint where there is one.

    A run whose loss does not stay finite counts as finished, without scores.

    Args:
        runs: settings of the runs; `output` is the folder of each.

    Raises:
        NestKALAError: what else went wrong in a run, with its folder.
    """
    missing = [run for run in runs if not any(map(Path.exists, (_metrics(run), _diverged(run))))]
    for config in tqdm(missing, desc="runs", unit="run", disable=not missing):
        folder = _folder(config)
        if (folder / "checkpoint.safetensors").exists():
            config = config.model_copy(update={"resume": folder})
        else:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                train(config)
        except DivergedError as error:
            write_text(_diverged(config), one_line(error) + "\n")
        except NestKALAError as error:
            raise NestKALAError(f"{folder}: {error}") from error


def metrics(config: Config) -> dict[str, Any] | None:
    """What metrics.json of a finished run holds (`nestkala.run.Result`); None for one whose loss was not finite."""
    if _diverged(config).exists():
        return None
    content: dict[str, Any] = json.loads(_metrics(config).read_text(encoding="utf-8"))
    return content


def mean_and_spread(values: Iterable[float]) -> str:
    """Mean and sample standard deviation (0 for one value) of scores in 0..1, times 100, such as `31.9 ± 0.4`."""
    scores = 100 * np.fromiter(values, float)
    return f"{scores.mean():.1f} ± {scores.std(ddof=1) if len(scores) > 1 else 0:.1f}"


def _folder(config: Config) -> Path:
    if config.output is None:
        raise ValueError("a run of a table needs output, the folder it is kept in")
    return config.output


def _metrics(config: Config) -> Path:
    return _folder(config) / "metrics.json"


def _diverged(config: Config) -> Path:
    return _folder(config) / "diverged.txt"
