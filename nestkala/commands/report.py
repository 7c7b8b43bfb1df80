"""`nestkala report`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..settings.arguments import comma_separated


@dataclass(frozen=True)
class Report:
    """Write a page on a run, in one HTML file: scores, curves, codes, bits, training, and what example queries find.

    Of several runs with the same queries and gallery a comparison, seeds of the same settings together.
    """

    run_folders: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN")]]
    """folders that training left, whose data is still there"""

    output: Path | None = None
    """folder for index.html, the pictures and report.json; by default report in the run, of several beside the first"""

    lengths: Annotated[tuple[int, ...], comma_separated(int, "BITS,BITS,...")] = ()
    """to report on; by default those that the first run was trained at"""

    def run(self) -> None:
        from ..report import write_report

        print(f"report: {write_report(self.run_folders, self.output, self.lengths, progress=True)}")
