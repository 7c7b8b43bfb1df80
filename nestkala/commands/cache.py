"""`nestkala cache`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True)
class Cache:
    """Show or clear the cache.

    It holds image tokens from frozen backbones and models exported for --backend.
    """

    action: Positional[Literal["show", "clear"]] = "show"
    """show the cache folder and its size, or delete its contents"""

    folder: Path | None = None
    """cache folder (default: $NESTKALA_CACHE or ~/.cache/nestkala/tokens)"""

    json: bool = False
    """print what was found or deleted as JSON"""

    def run(self) -> None:
        from ..runtimes.cache import ExportCache
        from ..tokens.cache import cache_size, clear_cache, default_folder

        folder = self.folder or default_folder()
        exports = ExportCache(folder)
        models, exported = exports.size()
        if self.action == "clear":
            exports.clear()
        size = clear_cache(folder) if self.action == "clear" else cache_size(folder)
        if self.json:
            there = {"exported_models": models, "exported_bytes": exported, **asdict(size)}
            print(json.dumps({"folder": str(folder), "action": self.action, **there}))
            return
        done = "deleted " if self.action == "clear" else ""
        print(f"{folder}: {done}{size.segments} segments, {size.bytes / 1e9:.2f} GB")
        if models:
            print(f"{folder}: {done}{models} exported models, {exported / 1e9:.2f} GB")
