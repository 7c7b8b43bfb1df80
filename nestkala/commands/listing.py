"""`nestkala list`."""

import json
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class List:
    """Show the losses or heads that are installed, with their papers and the packages that bring them."""

    kind: Positional[Literal["losses", "heads"]]
    """what to list"""

    json: bool = False
    """print the list as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..plugins import plugins

        found = plugins(self.kind).values()
        rows = [(plugin.name, getattr(plugin.load(), "paper", ""), plugin.origin) for plugin in found]
        columns = ("name", "paper", "origin")
        if self.json:
            print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows]))
        else:
            print(tabulate(rows, columns, tablefmt="simple"))
