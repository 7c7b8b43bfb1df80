"""`nestkala list`."""

import json
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class List:
    """List the installed losses or heads, with their papers and the packages that provide them."""

    kind: Positional[Literal["losses", "heads"]]
    """what to list"""

    json: bool = False
    """print the list as JSON"""

    def run(self) -> None:
        from tabulate import tabulate

        from ..plugins import WITH_HSWD, plugins

        losses = self.kind == "losses"
        rows = [
            {"name": plugin.name, "paper": getattr(plugin.load(), "paper", ""), "origin": plugin.origin}
            | ({"with_hswd": plugin.name + WITH_HSWD} if losses else {})
            for plugin in plugins(self.kind).values()
        ]
        if self.json:
            print(json.dumps(rows))
            return
        print(tabulate([list(row.values())[:3] for row in rows], ("name", "paper", "origin"), tablefmt="simple"))
        if losses:
            print(f"\nNAME{WITH_HSWD}: any of these losses with HSWD (Doan et al., CVPR 2022) as its quantization term")
