"""`nestkala eval`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import comma_separated
from ..errors import NestKALAError


@dataclass(frozen=True)
class Eval:
    """Score a run's model on its own queries and gallery, at any prefix length, by image, class name and near copy.

    The near copies are of images in the gallery, cropped, scaled and saved again: copy@1 and copy@10 say how often one
    finds its original first, and among the first ten.

    Of several runs, such as seeds of one, mean and standard deviation.
    """

    run_folders: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """folders that training left, whose data is still there"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """to score; by default those that the first run was trained at"""

    json: bool = False
    """print the scores of each run as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..finished_run import SCORE_TITLES, FinishedRun, score_run

        if not self.run_folders:
            raise NestKALAError("name a run folder, or several")
        lengths, found = self.lengths, []
        for folder in self.run_folders:
            run = FinishedRun.open(folder)
            lengths = lengths or run.hasher.lengths
            for bits in lengths:
                run.hasher.columns(bits)  # a mistake is told before anything is encoded
            found.append([asdict(scores) for scores in score_run(run.encode(progress=not self.json), lengths)])
        if self.json:
            runs = zip(self.run_folders, found, strict=True)
            print(json.dumps([{"run": str(folder), "lengths": scores} for folder, scores in runs]))
            return
        several = len(found) > 1
        rows = []
        for place, bits in enumerate(lengths):
            low, high = found[0][place]["map_interval"]
            interval = () if several else (f"{low:.3f} to {high:.3f}",)
            means = [_cell([scores[place][name] for scores in found]) for name in SCORE_TITLES]
            rows.append((str(bits), *means[:2], *interval, *means[2:]))
        titles = list(SCORE_TITLES.values())
        headers = ("bits", *titles[:2], *(() if several else ("its 95 % interval",)), *titles[2:])
        print(tabulate(rows, headers, "github", disable_numparse=True, stralign="right"))
        if several:
            print(f"x 100, mean ± standard deviation of {len(found)} runs")


def _cell(values: Sequence[float | None]) -> str:
    from ..experiments import mean_and_spread

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{known[0]:.4f}" if len(known) == 1 else mean_and_spread(known)
