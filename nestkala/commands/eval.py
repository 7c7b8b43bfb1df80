"""`nestkala eval`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import comma_separated
from ..errors import NestKALAError


@dataclass(frozen=True)
class Eval:
    """Score a run's model on its own queries and gallery, at any prefix length, by image and by class name.

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

        from ..finished_run import encode_run, score_run

        if not self.run_folders:
            raise NestKALAError("name a run folder, or several")
        lengths, found = self.lengths, []
        for folder in self.run_folders:
            codes = encode_run(folder, lengths, progress=not self.json)
            lengths = lengths or codes.hasher.lengths
            found.append([asdict(scores) for scores in score_run(codes, lengths)])
        if self.json:
            runs = zip(self.run_folders, found, strict=True)
            print(json.dumps([{"run": str(folder), "lengths": scores} for folder, scores in runs]))
            return
        rows = []
        for place, bits in enumerate(lengths):
            columns = zip(*(list(scores[place].values())[1:] for scores in found), strict=True)
            rows.append((str(bits), *map(_cell, columns)))
        headers = ("bits", "mAP", "mAP tie-aware", "text to image, tie-aware", "classified")
        print(tabulate(rows, headers, "github", disable_numparse=True, stralign="right"))
        if len(found) > 1:
            print(f"x 100, mean ± standard deviation of {len(found)} runs")


def _cell(values: tuple[float | None, ...]) -> str:
    from ..experiments import mean_and_spread

    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    return f"{known[0]:.4f}" if len(known) == 1 else mean_and_spread(known)
