"""`nestkala index`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from ..utils.errors import NestKALAError

if TYPE_CHECKING:
    from ..hasher import Hasher
    from ..index import SearchIndex


@dataclass(frozen=True)
class Index:
    """Index a folder of images, or bring its index up to date: only new, changed and deleted files are touched.

    Of a folder that `nestkala encode` wrote, the images are added that the index does not have.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """of images, with all its subfolders; or one that `nestkala encode` wrote"""

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """file to write, or to bring up to date; or where Milvus keeps it: http://HOST:PORT, or a file of Milvus Lite that
    ends in .db, with #COLLECTION behind it if need be"""

    model: str | None = None
    """run folder, or "owner/name" on the Hugging Face hub; an index that is there knows its own"""

    workers: int | None = None
    """processes that decode images, 0 for none; by default one for every two cores, 8 at most"""

    save_every: int | None = None
    """images encoded between saves, by default 10,000: so many are lost at most by an interruption"""

    allow_removal: bool = False
    """remove images from the index also where most are gone, or all of a subfolder that is still there"""

    json: bool = False
    """print what changed as JSON"""

    def run(self) -> None:
        from ..index.milvus import is_address
        from ..search.opening import find_index
        from ..search.shards import is_encoded
        from ..utils.files import check_writable

        if not is_address(self.index):
            check_writable(Path(self.index))
        index = find_index(self.index)
        if is_encoded(self.folder):
            if self.model is not None:
                raise NestKALAError(f"{self.folder} knows which model made its codes: leave out --model")
            if self.workers is not None or self.save_every is not None:
                raise NestKALAError(f"{self.folder} holds codes already: leave out --workers and --save-every")
            self._put_together(index)
        else:
            self._update(index)

    def _update(self, index: "SearchIndex | None") -> None:
        if self.save_every is not None and self.save_every < 1:
            raise NestKALAError(f"--save-every must be 1 or more, not {self.save_every}")
        from ..hasher import Hasher
        from ..search.folder import update_from_folder
        from ..search.opening import create_index, save_index
        from ..search.provenance import about_model, hasher_of
        from ..utils.machine import decoding_workers

        folder = str(self.folder.resolve())
        if index is not None:
            hasher = hasher_of(index, self.model)
            if index.about.get("folder") != folder:
                raise NestKALAError(f"{self.index} is the index of {index.about.get('folder')}, not of {self.folder}")
        elif self.model is None:
            raise NestKALAError(f"there is no index {self.index} yet: to make one, name the --model")
        else:
            hasher = Hasher.from_pretrained(self.model)
            index = create_index(self.index, hasher.lengths, about_model(hasher, self.model) | {"folder": folder})
        changes = update_from_folder(
            index,
            self.folder,
            hasher,
            allow_removal=self.allow_removal,
            workers=decoding_workers(self.workers),
            progress=not self.json,
            keep=lambda: save_index(index, self.index),
            keep_every=self.save_every or 10_000,
        )
        doubts = _doubts(index, hasher)
        if self.json:
            print(json.dumps({"index": self.index, "images": len(index), **asdict(changes), "warnings": doubts}))
            return
        for name in changes.broken:
            print(f"warning: cannot read {name!r}")
        for line in changes.left_out.in_words():
            print(line)
        if changes.left_out.unlisted:
            print("note: what the index holds of images that cannot be listed stays in it")
        for line in doubts:
            print(line)
        print(
            f"{self.index}: {len(index)} images, {index.bits} bits each; {len(changes.added)} added, "
            f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.broken)} unreadable"
        )

    def _put_together(self, index: "SearchIndex | None") -> None:
        from tqdm import tqdm

        from ..search.opening import create_index, save_index
        from ..search.shards import read_plan, read_shards

        plan, shards = read_plan(self.folder), read_shards(self.folder)
        if index is None:
            index = create_index(self.index, plan.lengths, plan.about)
        elif index.about != plan.about:
            raise NestKALAError(f"{self.index} is an index of other images or of another model than {self.folder}")
        known = {name for name, _ in index.items()}  # which may be newer
        shown = tqdm(shards, total=plan.num_shards, unit="shard", disable=self.json)
        index.extend(shard.without(known) if known else shard for shard in shown)
        save_index(index, self.index)
        if self.json:
            print(json.dumps({"index": self.index, "images": len(index), "added": len(index) - len(known)}))
        else:
            print(f"{self.index}: {len(index)} images, {index.bits} bits each; {len(index) - len(known)} added")


def _doubts(index: "SearchIndex", hasher: "Hasher") -> list[str]:
    """Warnings of codes that say little, where they are at hand, and of class names that do."""
    from ..data.class_names import names_in_doubt
    from ..evaluation.collapse import Collapse
    from ..index import PrefixIndex

    found = Collapse.of(index.codes, index.bits).warnings() if isinstance(index, PrefixIndex) else []
    return found + (names_in_doubt(hasher.class_names) if hasher.spec.has_text_codes else [])
