"""`nestkala index`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ..errors import NestKALAError


@dataclass(frozen=True)
class Index:
    """Index a folder of images, or bring its index up to date: only new, changed and deleted files are touched."""

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """of images, with all its subfolders"""

    index: Positional[Annotated[Path, arg(metavar="INDEX")]]
    """file to write, or to bring up to date"""

    model: str | None = None
    """run folder, or "owner/name" on the Hugging Face hub; an index that is there knows its own"""

    workers: int = 0
    """processes that decode images; 0 decodes in this one"""

    json: bool = False
    """print what changed as JSON"""

    def run(self) -> None:
        from ..hasher import Hasher
        from ..index import PrefixIndex
        from ..index.folder import update_from_folder
        from ..index.model import hasher_of, index_for

        folder = str(self.folder.resolve())

        if self.index.exists():
            index = PrefixIndex.load(self.index)
            hasher = hasher_of(index, self.model)
            if index.about.get("folder") != folder:
                raise NestKALAError(f"{self.index} is the index of {index.about.get('folder')}, not of {self.folder}")
        elif self.model is None:
            raise NestKALAError(f"there is no index {self.index} yet: to make one, name the --model")
        else:
            hasher = Hasher.from_pretrained(self.model)
            index = index_for(hasher, self.model)
            index.about["folder"] = folder
        changes = update_from_folder(
            index,
            self.folder,
            hasher,
            workers=self.workers,
            progress=not self.json,
            keep=lambda: index.save(self.index),
        )
        if self.json:
            print(json.dumps({"index": str(self.index), "images": len(index), **asdict(changes)}, ensure_ascii=False))
            return
        for name in changes.broken:
            print(f"warning: cannot read {name!r}")
        print(
            f"{self.index}: {len(index)} images, {index.bits} bits each; {len(changes.added)} added, "
            f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.broken)} unreadable"
        )
