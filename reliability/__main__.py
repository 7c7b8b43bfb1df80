"""All harnesses of reliability: python -m reliability"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from tabulate import tabulate
from tyro.conf import Positional, arg

from benchmarks.ledger import machines, measure
from nestkala.cli import guarded
from nestkala.utils.files import write_text

from . import dependencies, full_disk, fuzzing, hostile_requests, kills, processes, properties
from .bad_inputs import corpus
from .figure import Figure

PAGE = """# Reliability

How NestKALA behaves when processes are killed, disks are full, files are damaged or requests are hostile. Measured by
`python -m reliability`, or by parts of it, such as `python -m reliability kills full_disk`. The harnesses are in
`reliability/`; filling a disk needs root. [SECURITY.md](../SECURITY.md) says what is promised, and what is not.

On {machine}.

{tables}
"""


@dataclass(frozen=True)
class Reliability:
    """Run some of the harnesses, or all, and write their table; rows of others in it stay."""

    names: Positional[Annotated[tuple[str, ...], arg(metavar="NAME")]] = ()
    """kills, full_disk, processes, bad_inputs, fuzzing, properties, hostile_requests, dependencies; by default all"""
    kills: int = 30
    """kills of each kind of work"""
    fuzzing_seconds: int = 300
    """that the loaders are fuzzed"""
    output: Path = Path("docs/reliability")
    """.json and .md are written here"""


def main(given: Reliability) -> None:
    """Run and write."""

    def within(harness: Callable[[Path], Sequence[Figure]]) -> Sequence[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            return harness(Path(folder))

    harnesses: dict[str, Callable[[], Sequence[Figure]]] = {
        "kills": partial(within, lambda folder: kills.run(folder, given.kills)),
        "full_disk": partial(within, full_disk.run),
        "processes": partial(within, processes.run),
        "bad_inputs": corpus.run,
        "fuzzing": lambda: fuzzing.run(given.fuzzing_seconds),
        "properties": properties.run,
        "hostile_requests": partial(within, hostile_requests.run),
        "dependencies": dependencies.run,
    }
    found = measure("harness", harnesses, given.names, given.output.with_suffix(".json"))
    write_text(given.output.with_suffix(".md"), page(found, list(harnesses)))
    print(f"{given.output}.md and .json")


def page(found: dict[str, Any], names: Sequence[str]) -> str:
    """Markdown of what the harnesses of these names found, where they have been run."""
    headers = ("what", "measured", "promised", "held")
    tables = []
    for name in names:
        if name in found:
            rows = [
                (row["what"], row["measured"], row["promised"], "yes" if row["held"] else "**no**")
                for row in found[name]["rows"]
            ]
            table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
            tables.append(f"## {name.replace('_', ' ').capitalize()}\n\n`python -m reliability {name}`\n\n{table}")
    return PAGE.format(machine=machines(found), tables="\n\n".join(tables))


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(tyro.cli(Reliability))))
