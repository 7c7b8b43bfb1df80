"""`nestkala eval`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..settings.arguments import comma_separated
from ..utils.errors import NestKALAError


@dataclass(frozen=True)
class Eval:
    """Score a run's model on its own queries and gallery, at any prefix length.

    Queries are images, class names and near copies. A near copy is a gallery image that was cropped, scaled and saved
    again: copy@1 and copy@10 are the share of copies that find their original first or among the first ten.

    For several runs, prints the mean and standard deviation over seeds with the same settings and data.
    """

    run_folders: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """run folders from training; their data must still be available"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """code lengths to score (default: the training lengths of the first run)"""

    json: bool = False
    """print each run's scores as JSON"""

    def run(self) -> None:
        from ..analysis.finished_run import FinishedRun, score_run
        from ..report.groups import group_runs

        if not self.run_folders:
            raise NestKALAError("give one or more run folders")
        runs = [FinishedRun.open(folder) for folder in self.run_folders]
        groups = group_runs(runs, same_data=False)
        lengths = self.lengths or runs[0].hasher.lengths
        for run in runs:
            for bits in lengths:
                run.hasher.columns(bits)  # reports mistakes before anything is encoded
        found, asked = {}, {}
        for run in runs:
            codes = run.encode(progress=not self.json)
            found[run] = [asdict(scores) for scores in score_run(codes, lengths)]
            size = {"queries": len(codes.query_labels), "gallery": len(codes.gallery)}
            asked[run] = codes.asked, {**size, "chance": codes.chance}
        if self.json:
            answers = [{"run": str(run.folder), **asked[run][1], "lengths": found[run]} for run in runs]
            print(json.dumps(answers))
            return
        for number, group in enumerate(groups):
            if number:
                print()
            if len(groups) > 1:
                print(group.name)
            print(_table([found[run] for run in group.runs]))
            for line in dict.fromkeys(asked[run][0] for run in group.runs):
                print(line)
            if len(group.runs) > 1:
                print(f"mean ± standard deviation of {len(group.runs)} runs")


def _table(found: Sequence[Sequence[dict[str, Any]]]) -> str:
    """A Markdown table of the scores {name: value} by length; for several runs, their mean and standard deviation."""
    from tabulate import tabulate

    from ..evaluation.titles import SCORE_TITLES

    several, rows = len(found) > 1, []
    shown = {
        name: title
        for name, title in SCORE_TITLES.items()
        if name != "precision_at_100" or all(of[name] is not None for scores in found for of in scores)
    }
    for of_length in zip(*found, strict=True):
        low, high = of_length[0]["map_interval"]
        interval = () if several else (f"{low:.3f} to {high:.3f}",)
        means = [_cell([scores[name] for scores in of_length]) for name in shown]
        rows.append((str(of_length[0]["bits"]), *means[:2], *interval, *means[2:]))
    titles = list(shown.values())
    headers = ("bits", *titles[:2], *(() if several else ("95 % interval",)), *titles[2:])
    return tabulate(rows, headers, "github", disable_numparse=True, stralign="right")


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{known[0]:.4f}" if len(known) == 1 else f"{mean(known):.4f} ± {stdev(known):.4f}"
