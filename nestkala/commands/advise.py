"""`nestkala advise`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Advise:
    """Recommend a code length to search at.

    Measures the quality, size and search time of every length in one pass.
    """

    run_folder: Positional[Annotated[Path, arg(metavar="RUN")]]
    """run folder from training; its queries are searched in its gallery"""

    min_map: float | None = None
    """required tie-aware mAP; the shortest length that reaches it is recommended"""

    max_ms: float | None = None
    """maximum time per search, in milliseconds"""

    max_bytes: int | None = None
    """maximum size of one image's code, in bytes"""

    plot: Path | None = None
    """write a plot of quality against bytes to this PNG or SVG file"""

    json: bool = False
    """print all lengths and the recommended one as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..analysis.advice import measure_codes, nested_codes, reason, recommend
        from ..analysis.plots import check_drawable, plot_lengths
        from ..evaluation.titles import SCORE_TITLES

        if self.plot is not None:
            check_drawable(self.plot)
        codes = nested_codes(self.run_folder, progress=not self.json)
        lengths, bounds = measure_codes(codes), (self.min_map, self.max_ms, self.max_bytes)
        chosen = recommend(lengths, *bounds)
        why = reason(lengths, chosen, *bounds)
        if self.plot is not None:
            plot_lengths(lengths, chosen, self.plot)
        if self.json:
            size = {"queries": len(codes.query_labels), "gallery": len(codes.gallery), "chance": codes.chance}
            plot = {} if self.plot is None else {"plot": str(self.plot)}
            answer = {"recommended": chosen.bits, "reason": why, **size, **plot}
            print(json.dumps({**answer, "lengths": [asdict(length) for length in lengths]}))
            return
        scores = dict.fromkeys(("map", "map_tie_aware", "copy_recall_at_1"), ".4f")
        formats = {"bits": "", "bytes": "", **scores, "ms": ".3f"}
        shown = {name: digits for name, digits in formats.items() if getattr(chosen, name) is not None}
        rows = [(*(getattr(length, name) for name in shown), "*" if length is chosen else "") for length in lengths]
        titles = [{**SCORE_TITLES, "ms": "ms/search"}.get(name, name) for name in shown]
        print(tabulate(rows, (*titles, ""), tablefmt="simple", floatfmt=tuple(shown.values())))
        cost = f"{chosen.bytes} byte{'s' * (chosen.bytes > 1)} per image"
        print(codes.asked)
        if self.plot is not None:
            print(f"plot: {self.plot}")
        print(f"recommended: {chosen.bits} bits (tie-aware mAP {chosen.map_tie_aware:.4f}, {cost}). {why}")
