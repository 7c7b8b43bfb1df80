"""A report as one HTML file that loads nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from ..evaluation.copies import MEANING
from ..index.strings import as_text
from ..settings.config import dump_config
from .charts import Chart
from .drawing import as_svg
from .examples import RESULTS, Example, Picture
from .groups import Group
from .tables import run_table, score_table

SILHOUETTE = (
    "Silhouette: 50 (s + 1), s the mean silhouette coefficient, -1 to 1, of the queries' codes by Hamming distance; "
    "50 is no grouping by class at all."
)


def report_page(
    groups: Sequence[Group], charts: Mapping[str, Sequence[Chart]], examples: Sequence[Example] | None
) -> str:
    """The page.

    Args:
        groups: one, or several to compare.
        charts: {section: its charts}, sections "quality", "recall", "precision", "codes" and "training".
        examples: None where the data has no images.
    """
    first = groups[0].first
    alone = len(groups) == 1 and len(groups[0].runs) == 1
    sections = {
        "Scores": _scores(groups),
        "Curves": _curves(charts["quality"], charts["recall"], charts["precision"]),
        "Codes": _figures(charts["codes"]) + _without_map(groups),
        "Training": _training(groups, charts["training"]),
        "Examples": _examples(examples, several=len(groups) > 1),
        "Settings": _settings(groups, alone),
    }
    body = "\n".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>\n{content}\n</section>' for title, content in sections.items()
    )
    return Template(files("nestkala").joinpath("pages/report.html").read_text(encoding="utf-8")).substitute(
        title=_text(groups[0].name if len(groups) == 1 else f"{len(groups)} kinds of runs compared"),
        subtitle=_text(
            f"{first.config.data}: {first.num_queries:,} queries, {first.num_gallery:,} images in the gallery, "
            f"{len(first.class_names):,} classes" + (f", {first.num_train:,} training images" if alone else "")
        ),
        links="\n".join(f'<a href="#{title.lower()}">{title}</a>' for title in sections),
        sections=body,
    )


def _scores(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    notes = [
        "Scores x 100. mAP: ties in gallery order; tie-aware: its expectation over random order within ties, with its "
        "95 % interval over the queries.",
        f"Chance level of the mAP: {100 * runs[0].chance:.1f}, of {runs[0].num_queries:,} queries.",
    ]
    if any(of.scores.copy_recall_at_1 is not None for run in runs for of in run.lengths.values()):
        notes.append(f"{MEANING}.")
    if any(len(group.runs) > 1 for group in groups):
        notes.append("±: standard deviation over seeds.")
    if top_k := runs[0].config.top_k:
        notes.append(f"The first {top_k:,} results count.")
    notes.append("Within 2 bits: precision, 0 for a query that finds nothing.")
    notes.append("RAMAP@2: the same and that within 0 and 1, each over the buckets that it looks up, on average.")
    notes.append(
        "No silhouette: images with several labels belong to no one group." if runs[0].multi_label else SILHOUETTE
    )
    doubts = [f"{'' if len(runs) == 1 else f'{run.name}: '}{line}" for run in runs for line in run.warnings]
    warned = "".join(_note(line[0].upper() + line[1:]) for line in doubts)
    return f"{_scrolling(score_table(groups))}\n{warned}{_note(' '.join(notes))}"


def _curves(*kinds: Sequence[Chart]) -> str:
    """In one row where there is one chart of each kind, else a row a kind."""
    alone = all(len(charts) == 1 for charts in kinds)
    return _figures([chart for charts in kinds for chart in charts]) if alone else "".join(map(_figures, kinds))


def _without_map(groups: Sequence[Group]) -> str:
    if groups[0].first.map is not None:
        return ""
    return _note("There are too few queries for a map of their codes.")


def _training(groups: Sequence[Group], charts: Sequence[Chart]) -> str:
    missing = [run.name for group in groups for run in [group.first] if not run.history]
    content = _figures(charts)
    if missing:
        content += _note(
            f"No history of {', '.join(missing)}: nothing was trained, or by a version that left no history.json."
        )
    return content


def _examples(examples: Sequence[Example] | None, several: bool) -> str:
    if examples is None:
        return _note("The data holds features in place of images, so there is nothing to show.")
    queries = "\n".join(_example(example) for example in examples)
    rows = "a row for each kind of runs" if several else "a row for each length"
    return (
        _note(
            f"The first {RESULTS} results, {rows}, ties in gallery order. ✓ and a full frame: shares a class with the "
            "query; ✗ and a dashed frame: does not. The number is the distance in bits."
        )
        + queries
    )


def _example(example: Example) -> str:
    rows = "\n".join(
        f"<h4>{_text(name)}</h4>\n<ol>{''.join(_result(picture) for picture in found)}</ol>"
        for name, found in example.found.items()
    )
    query = example.query
    return (
        f'<article><figure><img src="{query.image}" alt="query: {_text(query.label)}">'
        f"<figcaption>{_text(query.label)}</figcaption></figure><div>{rows}</div></article>"
    )


def _result(picture: Picture) -> str:
    kind, sign = ("right", "✓") if picture.relevant else ("wrong", "✗")
    return (
        f'<li class="{kind}"><figure><img src="{picture.image}" alt="{kind}: {_text(picture.label)}">'
        f"<figcaption><b>{sign}</b> {picture.distance} <span>{_text(picture.label)}</span></figcaption></figure></li>"
    )


def _settings(groups: Sequence[Group], alone: bool) -> str:
    table = "" if alone else _scrolling(run_table(groups))
    return table + "\n".join(
        f"<details><summary>All settings of {_text(group.first.name)}</summary>"
        f"<pre>{_text(dump_config(group.first.config))}</pre></details>"
        for group in groups
    )


def _figures(charts: Sequence[Chart]) -> str:
    return f'<div class="charts">{"".join(_figure(chart) for chart in charts)}</div>' if charts else ""


def _figure(chart: Chart) -> str:
    note = f"<figcaption>{_text(chart.note)}</figcaption>" if chart.note else ""
    title = _text(chart.title)
    return f'<figure><h3>{title}</h3><div role="img" aria-label="{title}">{as_svg(chart.figure)}</div>{note}</figure>\n'


def _scrolling(table: str) -> str:
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{_text(text)}</p>\n'


def _text(text: str) -> str:
    return escape(as_text(text))
