"""Plots of an experiment's sweeps."""

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.plots import COLORS, save_figure
from .grid import Grid
from .schema import Row
from .tables import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sweeps(grid: Grid, path: Path) -> bool:
    """Plot the first measure over the values of each numeric sweep, one panel per data set and number of shots.

    Returns:
        Whether there was such a sweep, and so a PNG at `path`.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    experiment = grid.experiment
    places = dict.fromkeys((trial.data, trial.shots) for trial in grid.trials)
    panels = [
        (data, shots, experiment.rows_of(method), setting)
        for method, entry in experiment.methods.items()
        for setting, values in entry.sweep.items()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        for data, shots in places
        if shots in experiment.shots_of(method)
    ]
    if panels:
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(1 + 4 * columns, 3 * rows), layout="constrained")
        for place, panel in enumerate(panels, start=1):
            _draw(figure.add_subplot(rows, columns, place), grid, *panel)
        save_figure(figure, path)
    return bool(panels)


def _draw(axes: "Axes", grid: Grid, data: str, shots: int, rows: list[Row], setting: str) -> None:
    """The values of a setting, evenly spaced, with a line and its standard deviation for each length."""
    experiment = grid.experiment
    measure = experiment.measures[0]
    scores = 100 * np.stack([grid.scores(data, shots, row, measure) for row in rows])  # (values, seeds, lengths)
    spread = scores.std(axis=1, ddof=1 if experiment.seeds > 1 else 0)
    mean, places = scores.mean(axis=1), np.arange(len(rows))
    for place, (bits, color) in enumerate(zip(experiment.lengths, cycle(COLORS), strict=False)):
        middle, reach = mean[:, place], spread[:, place]
        axes.plot(places, middle, "o-", color=color, linewidth=2, markersize=4, label=f"{bits} bits")
        axes.fill_between(places, middle - reach, middle + reach, color=color, alpha=0.15, linewidth=0)
    axes.set_xticks(places, [f"{row.value:g}" for row in rows])
    title = f"{rows[0].method}, {data}, {shots} shot{'s' * (shots != 1)}"
    axes.set(title=title, xlabel=setting, ylabel=f"{MEASURES[measure]} x 100")
    axes.grid(alpha=0.25)
    axes.spines[["right", "top"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
