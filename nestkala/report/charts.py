"""The charts of a report, with their notes."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..analysis.plots import Axis, Line, balance_chart, heat_map, line_chart, scatter_chart
from ..utils.errors import as_line
from .groups import Group
from .measurements import CodeMap, LengthMeasurements, RunMeasurements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES = 20
_MOST_PANELS = 3


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart on the page.

    Attributes:
        name: file name without suffix.
        title: what it shows.
        note: remarks for the reader, may be empty.
        figure: the drawing.
    """

    name: str
    title: str
    note: str
    figure: "Figure"


def quality_chart(groups: Sequence[Group]) -> Chart:
    """Tie-aware mAP against bits: an interval over queries for a single run, the spread over seeds for several."""
    lines = []
    for group in groups:
        bits = list(group.first.lengths)
        values = np.array([[of.scores.map_tie_aware for of in run.lengths.values()] for run in group.runs])  # (n, m)
        mean = values.mean(axis=0)
        if len(group.runs) > 1:
            spread = values.std(axis=0, ddof=1)
            low, high = mean - spread, mean + spread
        else:
            low, high = np.array([of.scores.map_interval for of in group.first.lengths.values()]).T
        lines.append(Line(group.name, bits, mean.tolist(), low.tolist(), high.tolist()))
    ticks = list(groups[0].first.lengths)
    x = Axis("bits", log=True, ticks=ticks, low=ticks[0] / 1.15, high=ticks[-1] * 1.15)
    several = any(len(group.runs) > 1 for group in groups)
    bars = "standard deviation for runs with several seeds, otherwise " if several else ""
    figure = line_chart(lines, x, Axis("mAP, tie-aware", low=0), markers=True)
    return Chart("map", "Quality against length", f"Bars: {bars}95 % intervals over queries.", figure)


def recall_charts(groups: Sequence[Group]) -> Iterator[Chart]:
    """Precision against recall: one chart with all lengths for one group, one chart per length for several groups."""
    note = "One point per Hamming radius; a query that finds nothing within it counts 0, so long codes start low."
    for panel in _panels(groups):
        lines = [
            Line(
                name,
                _mean(group, bits, lambda of: of.radius_recall),
                _mean(group, bits, lambda of: of.radius_precision),
            )
            for name, group, bits in panel.curves
        ]
        figure = line_chart(lines, Axis("recall", low=0, high=1), Axis("precision", low=0))
        yield Chart(f"precision-recall{panel.suffix}", f"Precision and recall{panel.at}", note, figure)


def precision_charts(groups: Sequence[Group]) -> Iterator[Chart]:
    """Precision@N against N, in the same charts as `recall_charts`."""
    for panel in _panels(groups):
        lines = [
            Line(name, group.first.places, _mean(group, bits, lambda of: of.precision_at))
            for name, group, bits in panel.curves
        ]
        figure = line_chart(lines, Axis("N, first results", log=True, low=1), Axis("precision", low=0))
        yield Chart(
            f"precision-at{panel.suffix}", f"Precision among the first N{panel.at}", "Ties are in random order.", figure
        )


def code_charts(group: Group) -> Iterator[Chart]:
    """A map of the queries' codes; balance and correlation of the bits, over the gallery."""
    run = group.first
    if run.map is not None:
        yield _map_chart(run, run.map)
    constant = run.constant_bits
    told = f"constant: {', '.join(map(str, constant))}" if constant else "no bit is constant"
    note = f"0.5 is balanced; {told}. Over the gallery, bits numbered from 0."
    yield Chart("bit-balance", "How often each bit is 1", note, balance_chart(run.balance))
    values = np.abs(np.array(run.correlation, dtype=float))
    apart = values[~np.eye(len(values), dtype=bool)]
    known = apart[~np.isnan(apart)]
    note = f"Different bits: {known.mean():.2f} on average, at most {known.max():.2f}." if len(known) else ""
    note += " Gray: constant bits." if constant else ""
    figure = heat_map(values, "|correlation|")
    yield Chart("bit-correlation", "Correlation of bits", note.strip(), figure)


def training_charts(group: Group) -> Iterator[Chart]:
    """Losses, gradient weights and the discrete objective over the epochs."""
    run = group.first
    if not run.history:
        return
    history, epochs = run.history, list(range(1, len(run.history) + 1))
    lengths = list(history[0].weights)
    x = Axis("epoch", whole=True)

    def lines(value: Callable[[int, int], float]) -> list[Line]:
        return [Line(f"{bits} bits", epochs, [value(n, bits) for n in range(len(epochs))]) for bits in lengths]

    figure = line_chart(lines(lambda n, bits: history[n].weights[bits]), x, Axis("weight", low=0))
    note = "Mean over the steps of an epoch; 1 is an equal share."
    yield Chart("weights", "Weights of the lengths' gradients", note, figure)
    figure = line_chart(lines(lambda n, bits: sum(history[n].terms[bits].values())), x, Axis("loss"))
    yield Chart("loss", "Loss", "All terms including distillation, before weighting.", figure)
    objectives = [epoch.objective for epoch in history if epoch.objective is not None]
    if len(objectives) == len(history):
        figure = line_chart(lines(lambda n, bits: objectives[n][bits] / bits / run.num_train), x, Axis("objective"))
        note = f"For {run.config.loss}, per bit and training image, after DCC; the network changes between epochs."
        yield Chart("objective", "Objective of the discrete codes", note, figure)


def _map_chart(run: RunMeasurements, of_queries: CodeMap) -> Chart:
    classes = np.array(of_queries.classes)
    common = [number for number, _ in Counter(classes[classes >= 0].tolist()).most_common(_MOST_CLASSES)]
    shown = sorted(common) if len(common) > 1 else []
    numbers = np.full(len(classes), -1)
    for place, number in enumerate(shown):
        numbers[classes == number] = place
    names = [as_line(run.class_names[number]) for number in shown]
    longest = max(run.lengths)
    notes = [f"t-SNE on Hamming distances, {len(classes):,} queries."]
    if run.multi_label:
        notes.append("Colored by the first label of each image.")
    if (numbers == -1).any() and shown:
        notes.append(f"Gray: classes that are not among the {len(shown)} most frequent, or no class.")
    figure = scatter_chart(np.array(of_queries.places), names, numbers)
    return Chart("tsne", f"The queries' {longest}-bit codes", " ".join(notes), figure)


@dataclass(frozen=True, eq=False)
class _Panel:
    """One of several similar charts: suffixes of its file name and title, and its curves (name, group, bits)."""

    suffix: str
    at: str
    curves: list[tuple[str, Group, int]]


def _panels(groups: Sequence[Group]) -> list[_Panel]:
    every = list(groups[0].first.lengths)
    if len(groups) == 1:
        return [_Panel("", "", [(f"{bits} bits", groups[0], bits) for bits in every])]
    chosen = every if len(every) <= _MOST_PANELS else [every[0], every[len(every) // 2], every[-1]]
    return [
        _Panel(f"-{bits}bits", f" at {bits} bits", [(group.name, group, bits) for group in groups]) for bits in chosen
    ]


def _mean(group: Group, bits: int, value: Callable[[LengthMeasurements], Sequence[float]]) -> list[float]:
    """Pointwise mean over the group's runs."""
    means: list[float] = np.mean([value(run.lengths[bits]) for run in group.runs], axis=0).tolist()
    return means
