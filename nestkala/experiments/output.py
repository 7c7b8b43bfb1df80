"""Output of an experiment: tables in Markdown and LaTeX, all scores in JSON, and a plot of its sweeps."""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..utils.files import write_text
from .grid import Grid
from .plots import draw_sweeps
from .schema import Experiment
from .tables import latex, make_tables, markdown

logger = logging.getLogger(__name__)


def write_output(grid: Grid, folder: Path, changes: Sequence[str], absent: Iterable[str]) -> list[Path]:
    """Write NAME.md, .tex and .json, plus NAME.png if the experiment sweeps numbers and matplotlib is installed.

    Args:
        grid: grid whose runs are all finished.
        folder: output folder.
        changes: deviations from the experiment's file, as text.
        absent: names of data sets that were skipped.

    Returns:
        The files written.
    """
    experiment, absent = grid.experiment, list(absent)
    remarks, tables = _remarks(grid, changes, absent), make_tables(grid)
    paragraphs = [experiment.about.strip(), f"`nestkala experiment {experiment.name}`. {remarks}", _tuned(experiment)]
    result = {
        "name": experiment.name,
        "title": experiment.title,
        "changes": list(changes),
        "left_out": absent,
        "settings": {name: method.settings for name, method in experiment.methods.items()},
        "trials": grid.as_json(),
    }
    texts = {
        ".md": markdown(experiment.title, [*filter(None, paragraphs)], tables),
        ".tex": latex(remarks, tables),
        ".json": json.dumps(result, indent=1, ensure_ascii=False) + "\n",
    }
    written = []
    for suffix, text in texts.items():
        written.append(folder / f"{experiment.name}{suffix}")
        write_text(written[-1], text)
    picture = folder / f"{experiment.name}.png"
    try:
        if draw_sweeps(grid, picture):
            written.append(picture)
    except ImportError:
        logger.warning('no plot of the sweeps without matplotlib: pip install "nestkala[plots]"')
    return written


def _remarks(grid: Grid, changes: Sequence[str], absent: Sequence[str]) -> str:
    seeds = grid.experiment.seeds
    backbones = sorted({run.config.backbone for run in grid.runs})
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    sentences = [f"Backbone {', '.join(backbones)}; {spread}."]
    if tune := grid.experiment.tune:
        values = ", ".join(map(str, tune.sweep[tune.setting]))
        sentences.append(f"{tune.setting} was tuned over {values} at {tune.shots} shots, on other queries.")
    if changes:
        sentences.append(f"Changed from the file: {'; '.join(changes)}.")
    if absent:
        sentences.append(f"Skipped because the data was missing: {', '.join(absent)}.")
    return " ".join(sentences)


def _tuned(experiment: Experiment) -> str:
    """A list with the methods at each chosen value of the tuned setting; empty without one."""
    if experiment.tune is None:
        return ""
    setting = experiment.tune.setting
    methods: dict[str, list[str]] = {str(value): [] for value in experiment.tune.sweep[setting]}
    for name, method in experiment.methods.items():
        if setting in method.settings:
            methods.setdefault(str(method.settings[setting]), []).append(name)
    return "\n".join(f"- {setting} {value}: {'; '.join(names)}" for value, names in methods.items() if names)
