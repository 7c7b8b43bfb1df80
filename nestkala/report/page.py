"""A report as one self-contained HTML file."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ..analysis.plots import as_svg
from ..evaluation.copies import MEANING
from ..pages import render
from ..settings.loading import dump_config
from .charts import Chart
from .examples import RESULTS, Example
from .groups import Group
from .tables import run_table, score_table
from .verdict import headlines, verdict

SILHOUETTE = (
    "Silhouette: 50 (s + 1), where s is the mean silhouette coefficient, -1 to 1, of the queries' codes by Hamming "
    "distance; 50 means no grouping by class."
)


def report_page(
    groups: Sequence[Group], charts: Mapping[str, Sequence[Chart]], examples: Sequence[Example] | None
) -> str:
    """The page.

    Args:
        groups: one group, or several to compare.
        charts: {section: charts}, with sections "quality", "recall", "precision", "codes" and "training".
        examples: None if the data has no images.
    """
    first = groups[0].first
    alone = len(groups) == 1 and len(groups[0].runs) == 1
    training = f", {first.num_train:,} training images" if alone else ""
    curves = [charts["quality"], charts["recall"], charts["precision"]]
    if all(len(row) == 1 for row in curves):
        curves = [[chart for row in curves for chart in row]]
    return render(
        "report.html",
        title=groups[0].name if len(groups) == 1 else f"{len(groups)} kinds of runs compared",
        subtitle=f"{first.config.data}: {first.num_queries:,} queries, {first.num_gallery:,} images in the gallery, "
        f"{len(first.class_names):,} classes{training}",
        groups=groups,
        verdict=verdict,
        headlines=headlines,
        scores=Markup(score_table(groups)),
        doubts=_doubts(groups),
        score_note=_score_note(groups),
        curves=curves,
        charts=charts,
        has_map=first.map is not None,
        without_history=[group.first.name for group in groups if not group.first.history],
        examples=examples,
        num_results=RESULTS,
        runs=None if alone else Markup(run_table(groups)),
        svg=lambda figure: Markup(as_svg(figure)),
        settings=dump_config,
    )


def _doubts(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    lines = [f"{'' if len(runs) == 1 else f'{run.name}: '}{line}" for run in runs for line in run.warnings]
    return [line[0].upper() + line[1:] for line in lines]


def _score_note(groups: Sequence[Group]) -> str:
    runs = [run for group in groups for run in group.runs]
    notes = [
        "Scores x 100. mAP: ties in gallery order; tie-aware: expectation over random order within ties, with a 95 % "
        "interval over the queries.",
        f"Chance level of the mAP: {100 * runs[0].chance:.1f} ({runs[0].num_queries:,} queries).",
    ]
    if any(of.scores.copy_recall_at_1 is not None for run in runs for of in run.lengths.values()):
        notes.append(f"{MEANING}.")
    if any(len(group.runs) > 1 for group in groups):
        notes.append("±: standard deviation over seeds.")
    if top_k := runs[0].config.top_k:
        notes.append(f"Only the first {top_k:,} results count.")
    notes.append("Within 2 bits: precision, 0 for a query that finds nothing.")
    notes.append(
        "RAMAP@2: mean of the precision within 0, 1 and 2 bits, each divided by the number of buckets looked up."
    )
    notes.append(
        "No silhouette: images with several labels do not belong to a single group."
        if runs[0].multi_label
        else SILHOUETTE
    )
    return " ".join(notes)
