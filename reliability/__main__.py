"""All harnesses of reliability: python -m reliability"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from benchmarks.ledger import Rows, measure, table
from nestkala.cli import guarded

from . import dependencies, full_disk, fuzzing, hostile_requests, kills, processes, properties, readers
from .bad_inputs import corpus
from .finding import Finding

PAGE = """# Reliability

How NestKALA behaves when processes are killed, disks are full, files are damaged or requests are hostile. Measured by
`python -m reliability`, or parts of it, such as `python -m reliability kills full_disk`. The harnesses are in
`reliability/`; filling a disk needs root. [SECURITY.md](../SECURITY.md) says what is promised, and what is not.

On {machine}.
"""
COLUMNS = {"what": "what", "measured": "measured", "promised": "promised", "held": "held"}


@dataclass(frozen=True)
class Reliability:
    """Run some or all harnesses and write their table; rows of other harnesses are kept."""

    names: Positional[Annotated[tuple[str, ...], arg(metavar="NAME")]] = ()
    """kills, readers, full_disk, processes, bad_inputs, fuzzing, properties, hostile_requests, dependencies; by default
    all"""
    kills: int = 30
    """kills of each kind of work"""
    fuzzing_seconds: int = 300
    """seconds for fuzzing the loaders"""
    output: Path = Path("docs/reliability")
    """path without suffix for .json and .md"""


def main(given: Reliability) -> None:
    """Run and write."""

    def within(harness: Callable[[Path], Sequence[Finding]]) -> Sequence[Finding]:
        with tempfile.TemporaryDirectory() as folder:
            return harness(Path(folder))

    harnesses: dict[str, Callable[[], Sequence[Finding]]] = {
        "kills": partial(within, lambda folder: kills.run(folder, given.kills)),
        "readers": partial(within, readers.run),
        "full_disk": partial(within, full_disk.run),
        "processes": partial(within, processes.run),
        "bad_inputs": corpus.run,
        "fuzzing": lambda: fuzzing.run(given.fuzzing_seconds),
        "properties": properties.run,
        "hostile_requests": partial(within, hostile_requests.run),
        "dependencies": dependencies.run,
    }
    measure("harness", harnesses, given.names, given.output, page)


def page(found: dict[str, Rows], machine: str) -> str:
    """A table for each harness."""
    return PAGE.format(machine=machine) + "".join(
        f"\n## {name.replace('_', ' ').capitalize()}\n\n`python -m reliability {name}`\n\n{table(rows, COLUMNS)}\n"
        for name, rows in found.items()
    )


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(tyro.cli(Reliability))))
