"""A report on finished runs: numbers, charts and a page. `write_report` makes it; the extra `plots` draws."""

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
    """Write index.html, which holds everything, a PNG of each of its charts, and report.json with all numbers.

    Args:
        folders: of finished runs, one or several with the same queries and gallery, whose data is still there.
        output: folder to write to; by default `report` in the run, or, of several, beside the first.
        lengths: to report on, ascending; by default those that the first run was trained at.
        progress: show bars while encoding.

    Returns:
        The page.

    Raises:
        NestKALAError: matplotlib is not installed; what is no run; runs that cannot be compared; a length that a run
            does not have; a folder with another page in it.
    """
    new_figure(1, 1)  # that it cannot draw is told before anything is encoded
    if not folders:
        raise NestKALAError("name a run folder, or several")
    if output is None:
        output = folders[0] / "report" if len(folders) == 1 else folders[0].resolve().parent / "report"
    if (output / "index.html").exists() and not (output / "report.json").exists():
        raise NestKALAError(f"{output} holds a page that is no report: name another --output")
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
    """Raise NestKALAError where two runs' scores are of different questions."""
    (ours, split), (theirs, other_split) = one.data, other.data

    def same(mine: NDArray[np.int64], yours: NDArray[np.int64]) -> bool:
        names = [ours.names[index] for index in mine] == [theirs.names[index] for index in yours]
        return names and bool((ours.targets[mine] == theirs.targets[yours]).all())

    if ours.class_names != theirs.class_names:
        differs = "classes are others"
    elif not same(split.query, other_split.query):
        differs = "queries are others"
    elif not same(split.gallery, other_split.gallery):
        differs = "gallery is another"
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
    """Of one group its first run at several lengths, of several groups each one's first run at the middle one."""
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
