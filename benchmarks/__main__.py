"""All comparisons with plain baselines: python -m benchmarks --cifar10 cifar10"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from nestkala.cli import guarded
from nestkala.utils.errors import NestKALAError

from . import (
    backends,
    clora_update,
    cost_growth,
    dcc,
    decoding,
    encoders,
    evaluation,
    first_encoding,
    first_evaluation,
    five_lengths,
    index_update,
    postgres,
    search,
    search_growth,
    search_trained,
    trunk_cut,
)
from .comparison import Row
from .ledger import Rows, measure, table

PAGE = """# Against plain baselines

`python -m benchmarks --cifar10 cifar10 --photographs caltech101`. Each number is a ratio within one run: the baseline
and NestKALA take turns on the same cores; medians with their range. The baselines are in `benchmarks/`, written like
published code, and give the same results. CIFAR-10 is a folder of its images, {{train,test}}/CLASS, and the photographs
are Caltech-101 in class folders. The figure needs `pip install "nestkala[plots]"`.

On {machine}.

{table}
"""
PLOT = "![seconds against training images, and against codes](pictures/cost_growth.png)"
COLUMNS = {"what": "what", "baseline": "against", "measured": "measured", "target": "target", "met": "met"}


@dataclass(frozen=True)
class Benchmarks:
    """Run some or all comparisons and write their table; rows of other comparisons are kept."""

    names: Positional[Annotated[tuple[str, ...], arg(metavar="NAME")]] = ()
    """evaluation, first_evaluation, dcc, clora_update, trunk_cut, five_lengths, first_encoding, decoding, backends,
    networks, encoders, cost_growth, search, search_growth, search_trained, index_update, postgres; by default all that
    need no --run or --postgres"""
    cifar10: Path = Path("cifar10")
    """folder of CIFAR-10's images, for trunk_cut and first_encoding"""
    photographs: Path = Path("caltech101")
    """folder of class folders of photographs, for decoding, backends and encoders"""
    items: int = 10_000_000
    """number of codes to search, for search, search_trained and postgres, and to add to, for index_update"""
    largest: int = 100_000_000
    """largest number of codes for search_growth"""
    run: Path | None = None
    """folder of a training run, for search_trained"""
    postgres: str | None = None
    """postgresql://USER@HOST:PORT/DATABASE, for postgres, which makes two tables there and drops them"""
    output: Path = Path("docs/benchmarks")
    """path without suffix for .json and .md; the figure goes to pictures/cost_growth.png next to them"""


def main(given: Benchmarks) -> None:
    """Measure and write."""
    plot = given.output.parent / "pictures/cost_growth.png"
    known: dict[str, Callable[[], list[Row]]] = {
        "evaluation": evaluation.run,
        "first_evaluation": first_evaluation.run,
        "dcc": dcc.run,
        "clora_update": clora_update.run,
        "trunk_cut": partial(trunk_cut.run, given.cifar10),
        "five_lengths": five_lengths.run,
        "first_encoding": partial(first_encoding.run, given.cifar10),
        "decoding": partial(decoding.run, given.photographs),
        "backends": partial(backends.run_files, given.photographs),
        "networks": backends.run_networks,
        "encoders": partial(encoders.run, given.photographs),
        "cost_growth": partial(cost_growth.run, plot),
        "search": partial(search.run, given.items),
        "search_growth": partial(search_growth.run, given.largest),
        "search_trained": partial(search_trained.run, given.run, given.items),
        "index_update": partial(index_update.run, given.items),
        "postgres": partial(postgres.run, given.postgres, given.items),
    }
    if not given.cifar10.is_dir() and {"trunk_cut", "first_encoding"} & set(given.names or known):
        raise NestKALAError(f"{given.cifar10} is not a folder: give the folder of CIFAR-10's images with --cifar10")
    if not given.photographs.is_dir() and {"decoding", "backends", "encoders"} & set(given.names or known):
        raise NestKALAError(f"{given.photographs} is not a folder: give a folder of photographs with --photographs")
    needs = {"search_trained": given.run, "postgres": given.postgres}
    names = given.names or [name for name in known if needs.get(name, "") is not None]
    measure("benchmark", known, names, given.output, page)


def page(found: dict[str, Rows], machine: str) -> str:
    """One table with all rows, and the plot."""
    plot = f"\n{PLOT}\n" if "cost_growth" in found else ""
    return PAGE.format(machine=machine, table=table(list(chain(*found.values())), COLUMNS)) + plot


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(tyro.cli(Benchmarks))))
