"""`nestkala cache`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class Cache:
    """Show or clear the cache of tokens that the frozen backbone made of images."""

    action: Positional[Literal["show", "clear"]] = "show"
    """show the folder and its size, or delete the tokens in it"""

    folder: Path | None = None
    """by default NESTKALA_CACHE or ~/.cache/nestkala/tokens"""

    json: bool = False
    """print what is there, or was deleted, as JSON"""

    def run(self) -> None:
        from ..tokens.cache import cache_size, clear_cache, default_folder

        folder = self.folder or default_folder()
        size = clear_cache(folder) if self.action == "clear" else cache_size(folder)
        if self.json:
            print(json.dumps({"folder": str(folder), "action": self.action, **asdict(size)}))
            return
        done = "deleted " if self.action == "clear" else ""
        print(f"{folder}: {done}{size.segments} segments, {size.bytes / 1e9:.2f} GB")
