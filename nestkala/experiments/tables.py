"""An experiment's scores as Markdown and LaTeX tables: mean and spread over seeds, the best of each column in bold."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import LATEX_ESCAPE_RULES, tabulate

from .grid import Grid
from .runs import mean_and_spread
from .schema import Measure, Row

MEASURES: dict[Measure, str] = {
    "map": "mAP",
    "map_tie_aware": "mAP tie-aware",
    "copy_recall_at_1": "near copies that find their original first",
    "copy_recall_at_10": "near copies that find their original among ten",
}
"""{measure: name in tables}."""


@dataclass(frozen=True)
class Table:
    """One table; double asterisks mark bold text.

    Attributes:
        title: title above the table.
        headers: column headers; empty for the column of row names.
        lines: name and cells of each row.
    """

    title: str
    headers: Sequence[str]
    lines: Sequence[Sequence[str]]


def make_tables(grid: Grid) -> list[Table]:
    """One table for each measure, data set and number of shots, with scores x 100.

    `mean` is over the lengths; `difference` is that mean minus the reference's, seed by seed; `seconds` are for
    training all lengths. If runs diverged, a cell says how many.
    """
    places = dict.fromkeys((trial.data, trial.shots) for trial in grid.trials)
    return [_table(grid, *place, measure) for measure in grid.experiment.measures for place in places]


def markdown(title: str, paragraphs: Sequence[str], tables: Sequence[Table]) -> str:
    """A page with the tables below paragraphs of text."""
    parts = [f"# {title}", *paragraphs]
    for table in tables:
        lines = [[cell.replace("|", r"\|") for cell in line] for line in table.lines]
        parts += [f"**{table.title}**", tabulate(lines, table.headers, "github", disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def latex(remarks: str, tables: Sequence[Table]) -> str:
    r"""The tables for a document with \usepackage{booktabs}; the remarks end every caption."""
    parts = []
    for table in tables:
        alignment = ("left", *("right" for _ in table.headers[1:]))
        body = tabulate(table.lines, table.headers, "latex_booktabs", disable_numparse=True, colalign=alignment)
        body = re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", body)
        caption = "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in f"{table.title}. {remarks}")
        lines = (r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", body, r"\end{table}")
        parts.append("\n".join(lines).replace("±", r"$\pm$"))
    return "\n\n".join(parts) + "\n"


def _table(grid: Grid, data: str, shots: int, measure: Measure) -> Table:
    experiment = grid.experiment
    rows = [row for row in experiment.rows if grid.of(data, shots, row)]
    scores = [grid.scores(data, shots, row, measure) for row in rows]  # (seeds, lengths) each
    headers = ["", *(f"{bits} bits" for bits in experiment.lengths)]
    columns = [_best_in_bold(column) for column in np.moveaxis(np.stack(scores), 2, 0)]
    means = [found.mean(axis=1) for found in scores]
    if len(experiment.lengths) > 1:
        headers.append("mean")
        columns.append(_best_in_bold(means))
    references = [experiment.reference_of(row) for row in rows]
    if any(references):
        headers.append("difference")
        columns.append([_difference(grid, data, shots, measure, *pair) for pair in zip(rows, references, strict=True)])
    if experiment.seconds:
        headers.append("seconds")
        columns.append([_seconds(grid, data, shots, row) for row in rows])
    lines = [[row.name, *cells] for row, *cells in zip(rows, *columns, strict=True)]
    title = f"{MEASURES[measure]} x 100, {data}, {shots} shot{'s' * (shots != 1)}"
    return Table(title + _references(grid, data, shots, measure), headers, lines)


def _references(grid: Grid, data: str, shots: int, measure: Measure) -> str:
    """Scores to compare with: chance, and the features themselves if they were scored."""
    if measure not in ("map", "map_tie_aware"):
        return ""
    trials = [trial for trial in grid.trials if (trial.data, trial.shots) == (data, shots)]
    metrics = [run.metrics for trial in trials for run in trial.runs if not run.has_diverged]
    parts = []
    for key, name in {"chance": "chance", "features_map": "the features themselves, by cosine"}.items():
        values = [found[key] for found in metrics if found[key] is not None]
        if values:
            parts.append(f"{name} {100 * np.mean(values):.1f}")
    return f" ({'; '.join(parts)})" if parts else ""


def _best_in_bold(column: Sequence[NDArray[np.float64]]) -> list[str]:
    """The scores (seeds,) of each row -> its cell, the best in bold."""
    means = np.array([seeds.mean() for seeds in column])
    best = np.nanmax(means) if len(column) > 1 and not np.isnan(means).all() else None
    cells = []
    for seeds, mean in zip(column, means, strict=True):
        if diverged := int(np.isnan(seeds).sum()):
            cells.append(f"{diverged} of {len(seeds)} diverged")
        else:
            cells.append(f"**{mean_and_spread(seeds)}**" if mean == best else mean_and_spread(seeds))
    return cells


def _difference(grid: Grid, data: str, shots: int, measure: Measure, row: Row, reference: Row | None) -> str:
    if reference is None or not grid.of(data, shots, reference):
        return ""
    ours, theirs = (grid.scores(data, shots, one, measure).mean(axis=1) for one in (row, reference))
    if np.isnan(ours - theirs).any():
        return ""
    return mean_and_spread(ours - theirs, sign="+")


def _seconds(grid: Grid, data: str, shots: int, row: Row) -> str:
    seconds = np.array([trial.seconds for trial in grid.of(data, shots, row)])
    return "" if np.isnan(seconds).any() else f"{seconds.mean():.1f}"
