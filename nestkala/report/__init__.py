"""Reports on finished runs: numbers, charts and a page. `write_report` makes one; charts need the extra `plots`."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..analysis.finished_run import FinishedRun, RunCodes
from ..analysis.plots import new_figure, save_figure
from ..utils.errors import NestKALAError
from ..utils.files import check_writable, write_text
from .charts import Chart, code_charts, precision_charts, quality_chart, recall_charts, training_charts
from .examples import Example, find_examples, has_images, nearest_lengths
from .groups import Group, group_runs
from .measurements import RunMeasurements, measure
from .page import report_page

__all__ = ["write_report"]


def write_report(
    folders: Sequence[Path], output: Path | None = None, lengths: tuple[int, ...] = (), progress: bool = False
) -> Path:
    """Write index.html, which is self-contained, a PNG of each chart, and report.json with all numbers.

    Args:
        folders: finished runs, one or several with the same queries and gallery, whose data still exists.
        output: output folder; by default `report` in the run, or next to the first of several runs.
        lengths: lengths to report on, ascending; by default those that the first run was trained at.
        progress: show progress bars while encoding.

    Returns:
        The page.

    Raises:
        NestKALAError: if matplotlib is not installed, a folder is not a run, runs cannot be compared, a run lacks a
            length, or the folder holds another page.
    """
    new_figure(1, 1)  # fail before encoding if it cannot draw
    if not folders:
        raise NestKALAError("give one or more run folders")
    if output is None:
        output = folders[0] / "report" if len(folders) == 1 else folders[0].resolve().parent / "report"
    if (output / "index.html").exists() and not (output / "report.json").exists():
        raise NestKALAError(f"{output} holds a page that is not a report: choose another --output")
    check_writable(output / "index.html")
    runs = [FinishedRun.open(folder) for folder in folders]
    lengths = tuple(sorted(set(lengths or runs[0].hasher.lengths)))
    for run in runs:
        for bits in lengths:
            run.hasher.columns(bits)
        _check_comparable(runs[0], run)
    codes = [run.encode(progress) for run in runs]
    measured = [measure(run, of_run, lengths) for run, of_run in zip(runs, codes, strict=True)]
    groups = group_runs(measured)
    charts = _charts(groups)
    page = report_page(groups, charts, _examples(groups, measured, runs, codes))
    for chart in (chart for section in charts.values() for chart in section):
        save_figure(chart.figure, output / f"{chart.name}.png")
    everything = {"runs": [run.as_json() for run in measured]}
    write_text(output / "report.json", json.dumps(everything, ensure_ascii=True) + "\n")
    write_text(output / "index.html", page)
    return output / "index.html"


def _check_comparable(one: FinishedRun, other: FinishedRun) -> None:
    """Raise NestKALAError if the scores of two runs do not measure the same thing."""
    (ours, split), (theirs, other_split) = one.data, other.data

    def same(mine: NDArray[np.int64], yours: NDArray[np.int64]) -> bool:
        names = [ours.names[index] for index in mine] == [theirs.names[index] for index in yours]
        return names and bool((ours.targets[mine] == theirs.targets[yours]).all())

    if ours.class_names != theirs.class_names:
        differs = "classes differ"
    elif not same(split.query, other_split.query):
        differs = "queries differ"
    elif not same(split.gallery, other_split.gallery):
        differs = "gallery differs"
    elif one.config.top_k != other.config.top_k:
        differs = f"top_k is {other.config.top_k}, not {one.config.top_k}"
    else:
        return
    raise NestKALAError(f"{other.folder} cannot be compared with {one.folder}: its {differs}")


def _charts(groups: Sequence[Group]) -> dict[str, list[Chart]]:
    return {
        "quality": [quality_chart(groups)],
        "recall": list(recall_charts(groups)),
        "precision": list(precision_charts(groups)),
        "codes": _of_each(groups, code_charts),
        "training": _of_each(groups, training_charts),
    }


def _of_each(groups: Sequence[Group], draw: Callable[[Group], Iterable[Chart]]) -> list[Chart]:
    if len(groups) == 1:
        return list(draw(groups[0]))
    return [
        replace(chart, name=f"{chart.name}-{number}", title=f"{chart.title}: {group.name}")
        for number, group in enumerate(groups, start=1)
        for chart in draw(group)
    ]


def _examples(
    groups: Sequence[Group], measured: Sequence[RunMeasurements], runs: Sequence[FinishedRun], codes: Sequence[RunCodes]
) -> list[Example] | None:
    """For one group, its first run at several lengths; for several, each one's first run at the middle length."""
    if not has_images(runs[0]):
        return None
    if len(groups) == 1:
        asked = [(f"{bits} bits", runs[0], codes[0], bits) for bits in nearest_lengths(runs[0])]
    else:
        asked = []
        for group in groups:
            place = measured.index(group.first)
            lengths = nearest_lengths(runs[place])
            bits = lengths[(len(lengths) - 1) // 2]
            asked.append((f"{group.name}, {bits} bits", runs[place], codes[place], bits))
    return list(find_examples(asked))
