"""`nestkala report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..settings.arguments import comma_separated


@dataclass(frozen=True)
class Report:
    """Write an HTML report on a run, or a comparison of several.

    The report is one HTML file with scores, curves, codes, bits, training history and the results of example queries.
    Runs to compare must have the same queries and gallery; seeds with the same settings are grouped.
    """

    run_folders: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """run folders from training; their data must still be available"""

    output: Path | None = None
    """folder for index.html, pictures and report.json (default: report, in the run or next to the first of several)"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """code lengths to report on (default: the training lengths of the first run)"""

    def run(self) -> None:
        from ..report import write_report

        print(f"report: {write_report(self.run_folders, self.output, self.lengths, progress=True)}")
