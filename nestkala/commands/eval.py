"""`nestkala eval`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..settings.arguments import comma_separated
from ..utils.errors import NestKALAError


@dataclass(frozen=True)
class Eval:
    """Score a run's model on its own queries and gallery, at any prefix length, by image, class name and near copy.

    The near copies are of images in the gallery, cropped, scaled and saved again: copy@1 and copy@10 say how often one
    finds its original first, and among the first ten.

    Of several runs, mean and standard deviation over seeds of the same settings, on the same data.
    """

    run_folders: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """folders that training left, whose data is still there"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """to score; by default those that the first run was trained at"""

    json: bool = False
    """print the scores of each run as JSON"""

    def run(self) -> None:
        from ..analysis.finished_run import FinishedRun, score_run
        from ..report.groups import group_runs

        if not self.run_folders:
            raise NestKALAError("name a run folder, or several")
        runs = [FinishedRun.open(folder) for folder in self.run_folders]
        groups = group_runs(runs, same_data=False)
        lengths = self.lengths or runs[0].hasher.lengths
        for run in runs:
            for bits in lengths:
                run.hasher.columns(bits)  # a mistake is told before anything is encoded
        found = {run: [asdict(s) for s in score_run(run.encode(progress=not self.json), lengths)] for run in runs}
        if self.json:
            print(json.dumps([{"run": str(run.folder), "lengths": found[run]} for run in runs]))
            return
        for number, group in enumerate(groups):
            if number:
                print()
            if len(groups) > 1:
                print(group.name)
            print(_table([found[run] for run in group.runs]))
            if len(group.runs) > 1:
                print(f"x 100, mean ± standard deviation of {len(group.runs)} runs")


def _table(found: Sequence[Sequence[dict[str, Any]]]) -> str:
    """The scores {name: value} of each run, by length, in Markdown; of several runs their mean and deviation."""
    from tabulate import tabulate

    from ..analysis.finished_run import SCORE_TITLES

    several, rows = len(found) > 1, []
    for of_length in zip(*found, strict=True):
        low, high = of_length[0]["map_interval"]
        interval = () if several else (f"{low:.3f} to {high:.3f}",)
        means = [_cell([scores[name] for scores in of_length]) for name in SCORE_TITLES]
        rows.append((str(of_length[0]["bits"]), *means[:2], *interval, *means[2:]))
    titles = list(SCORE_TITLES.values())
    headers = ("bits", *titles[:2], *(() if several else ("its 95 % interval",)), *titles[2:])
    return tabulate(rows, headers, "github", disable_numparse=True, stralign="right")


def _cell(values: Sequence[float | None]) -> str:
    from ..experiments import mean_and_spread

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{known[0]:.4f}" if len(known) == 1 else mean_and_spread(known)
