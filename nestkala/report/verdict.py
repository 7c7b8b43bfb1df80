"""What a report says first: one sentence per kind of runs, and the two numbers that matter."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..analysis.advice import shortest_sufficient
from .groups import Group
from .measurements import FIRST, LengthMeasurements


@dataclass(frozen=True)
class Headline:
    """A number at the top of a report.

    Attributes:
        title: what it measures, and at which length.
        value: in percent.
        beside: its chance level, and how many queries it is the mean of.
    """

    title: str
    value: str
    beside: str


def verdict(group: Group) -> str:
    """One sentence: how many of the first results are right, at which length, and whether longer codes do better.

    The length is the shortest of those measured that keeps 95 % of the best tie-aware mAP, as in `nestkala advise`.
    Of several seeds, all numbers are means.
    """
    run, chosen = group.first, _chosen(group)
    first = min(FIRST, run.num_gallery)
    right = first * _mean(group, chosen, lambda of: of.precision_at_first)
    which = "share a class with the query" if run.multi_label else "show the right class"
    found = f"{right:.1f}".removesuffix(".0")
    sentence = f"at {chosen} bits, {found} of the first {first} results {which}; chance is {_odds(run.chance)}"
    if all(of.scores.map_interval[0] <= run.chance for one in group.runs for of in one.lengths.values()):
        return f"No length is clearly better than chance: {sentence}."
    longer = [bits for bits in run.lengths if bits > chosen]
    if longer:
        best = max(_mean(group, bits, _quality) for bits in longer)
        sentence += (
            "; longer codes help little" if best > _mean(group, chosen, _quality) else "; longer codes do not help"
        )
    elif len(run.lengths) > 1:
        sentence += "; shorter codes find fewer"
    return f"{sentence[0].upper()}{sentence[1:]}."


def headlines(group: Group) -> list[Headline]:
    """Quality by class at the verdict's length and, for images, how often the longest code finds copies."""
    run, chosen, longest = group.first, _chosen(group), max(group.first.lengths)
    numbers = [
        Headline(
            f"Right class first: mAP, tie-aware, {chosen} bits",
            _percent(_mean(group, chosen, _quality)),
            f"chance: {_percent(run.chance)}; {run.num_queries:,} queries",
        )
    ]
    if run.num_copies:
        numbers.append(
            Headline(
                f"Copy finds its original first: copy@1, {longest} bits",
                _percent(_mean(group, longest, lambda of: of.scores.copy_recall_at_1 or 0.0)),
                f"chance: {_percent(1 / run.num_gallery)}; {run.num_copies:,} queries",
            )
        )
    return numbers


def _chosen(group: Group) -> int:
    return shortest_sufficient({bits: _mean(group, bits, _quality) for bits in group.first.lengths})


def _quality(of: LengthMeasurements) -> float:
    return of.scores.map_tie_aware


def _mean(group: Group, bits: int, value: Callable[[LengthMeasurements], float]) -> float:
    return float(np.mean([value(run.lengths[bits]) for run in group.runs]))


def _odds(chance: float) -> str:
    """A share in words: 1 in N where it is small, else so many in 10."""
    return f"1 in {1 / chance:,.0f}" if 0 < chance <= 0.2 else f"{10 * chance:.1f}".removesuffix(".0") + " in 10"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or not share else f"{100 * share:.1g} %"
