"""`nestkala eval`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..config import comma_separated


@dataclass(frozen=True)
class Eval:
    """Score a run's model on its own queries and gallery, at any prefix length, by image and by class name."""

    run_folder: Positional[Annotated[Path, arg(metavar="RUN")]]
    """folder that training left, whose data is still there"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """to score, as in 8,12,16; by default those it was trained at"""

    json: bool = False
    """print the scores as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..finished_run import encode_run, score_run

        codes = encode_run(self.run_folder, progress=not self.json)
        scores = [asdict(each) for each in score_run(codes, self.lengths or None)]
        if self.json:
            print(json.dumps({"lengths": scores}))
            return
        rows = [tuple(each.values()) for each in scores]
        headers = ("bits", "mAP", "mAP tie-aware", "text to image, tie-aware", "classified")
        print(tabulate(rows, headers, "github", floatfmt=("", *[".4f"] * 4), missingval="-"))
