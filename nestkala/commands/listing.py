"""`nestkala list`."""

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class List:
    """Show the losses or heads that are installed, with their papers and the packages that bring them."""

    kind: Positional[Literal["losses", "heads"]]
    """what to list"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..plugins import plugins

        found = plugins(self.kind).values()
        rows = [(plugin.name, getattr(plugin.load(), "paper", ""), plugin.origin) for plugin in found]
        print(tabulate(rows, ("name", "paper", "origin"), tablefmt="simple"))
