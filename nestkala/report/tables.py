"""The tables of a report as HTML."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..evaluation.titles import SCORE_TITLES
from ..experiments import mean_and_spread
from ..utils.errors import as_line
from .groups import Group


def score_table(groups: Sequence[Group]) -> str:
    """One row per length and group: scores x 100 (mean ± standard deviation for several seeds), and the silhouette."""
    alone, several = len(groups) == 1, all(len(group.runs) > 1 for group in groups)
    rows = []
    for bits in groups[0].first.lengths:
        for group in groups:
            found = [run.lengths[bits] for run in group.runs]
            cells = {
                title: _cell([getattr(of.scores, name) for of in found], scale=100)
                for name, title in SCORE_TITLES.items()
            }
            cells["silhouette"] = _cell([of.silhouette for of in found])
            low, high = found[0].scores.map_interval
            interval = f"{100 * low:.1f} to {100 * high:.1f}" if len(found) == 1 else _NONE
            rows.append({"bits": str(bits), "run": as_line(group.name), **cells, "95 % interval": interval})
    protocol, tie_aware, *others = SCORE_TITLES.values()
    titles = [protocol, tie_aware, "95 % interval", *others, "silhouette"]
    left_out = {"95 % interval"} if several else set()
    left_out |= {title for title in titles if all(row[title] == _NONE for row in rows)}
    columns = ["bits", *([] if alone else ["run"]), *(title for title in titles if title not in left_out)]
    return _table([[row[title] for title in columns] for row in rows], columns, left={"run"})


def run_table(groups: Sequence[Group]) -> str:
    """One row per run: its folder, its seed, and the settings in which the groups differ."""
    keys = list(groups[0].differing)
    rows = [
        [as_line(run.folder), *(as_line(group.differing[key]) for key in keys), str(run.config.seed)]
        for group in groups
        for run in group.runs
    ]
    return _table(rows, ["run", *keys, "seed"], left={"run", *keys})


_NONE = "-"


def _cell(values: Sequence[float | None], scale: float = 1) -> str:
    known = [value * scale for value in values if value is not None]
    if len(known) < len(values):
        return _NONE
    return f"{known[0]:.1f}" if len(known) == 1 else mean_and_spread(np.array(known) / 100)


def _table(rows: Sequence[Sequence[str]], titles: Sequence[str], left: set[str]) -> str:
    sides = ["left" if title in left else "right" for title in titles]
    return tabulate(rows, titles, "html", disable_numparse=True, colalign=sides)
