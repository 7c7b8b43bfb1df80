"""Pictures of an experiment's sweeps."""

from pathlib import Path

import numpy as np

from ..analysis.plots import Panel, plot_panels
from .grid import Grid
from .schema import Row
from .tables import MEASURES


def draw_sweeps(grid: Grid, path: Path) -> bool:
    """Draw the first measure over the values of each sweep of numbers, a panel a data set and number of shots.

    Returns:
        Whether there was such a sweep, and so a PNG at `path`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    experiment = grid.experiment
    places = dict.fromkeys((trial.data, trial.shots) for trial in grid.trials)
    panels = [
        _panel(grid, data, shots, experiment.rows_of(method), setting)
        for method, entry in experiment.methods.items()
        for setting, values in entry.sweep.items()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        for data, shots in places
        if shots in experiment.shots_of(method)
    ]
    if panels:
        plot_panels(panels, f"{MEASURES[experiment.measures[0]]} x 100", path)
    return bool(panels)


def _panel(grid: Grid, data: str, shots: int, rows: list[Row], setting: str) -> Panel:
    experiment = grid.experiment
    scores = 100 * np.stack([grid.scores(data, shots, row, experiment.measures[0]) for row in rows])
    means = scores.mean(axis=1)  # (values, lengths)
    spreads = scores.std(axis=1, ddof=1 if experiment.seeds > 1 else 0)
    lines = {
        f"{bits} bits": list(zip(means[:, place].tolist(), spreads[:, place].tolist(), strict=True))
        for place, bits in enumerate(experiment.lengths)
    }
    title = f"{rows[0].method}, {data}, {shots} shot{'s' * (shots != 1)}"
    return Panel(title, setting, [row.value for row in rows], lines)
