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

    Without --model nothing needs to be trained or named: codes are fitted to the folder itself, and the model is kept
    in INDEX.model beside the index. Of a folder that `nestkala encode` wrote, the images are added that the index does
    not have.
    """

    folder: Positional[Annotated[Path, arg(metavar="FOLDER")]]
    """of images, with all its subfolders; or one that `nestkala encode` wrote"""

    index: Positional[Annotated[str | None, arg(metavar="INDEX")]] = None
    """file to write, or to bring up to date, by default FOLDER.index; or where Milvus keeps it: http://HOST:PORT, or a
    file of Milvus Lite that ends in .db, with #COLLECTION behind it if need be"""

    model: str | None = None
    """run folder, or "owner/name" on the Hugging Face hub; an index that is there knows its own, and a new one gets a
    model that is fitted to the folder"""

    workers: int | None = None
    """threads that decode images, 0 for none; by default one for every core, 8 at most"""

    save_every: int | None = None
    """images encoded between saves, by default 10,000: so many are lost at most by an interruption"""

    allow_removal: bool = False
    """remove images from the index also where most are gone, or all of a subfolder that is still there"""

    json: bool = False
    """print what changed as JSON"""

    def run(self) -> None:
        from ..index.local.index_file import writing_alone
        from ..index.milvus import is_address
        from ..search.opening import index_beside
        from ..utils.files import check_writable

        where = self.index or index_beside(self.folder)
        if is_address(where):
            self._run(where)
            return
        check_writable(Path(where))
        with writing_alone(Path(where)):
            self._run(where)

    def _run(self, where: str) -> None:
        from ..search.opening import find_index
        from ..search.shards import is_encoded

        index = find_index(where)
        if is_encoded(self.folder):
            if self.model is not None:
                raise NestKALAError(f"{self.folder} knows which model made its codes: leave out --model")
            if self.workers is not None or self.save_every is not None:
                raise NestKALAError(f"{self.folder} holds codes already: leave out --workers and --save-every")
            self._put_together(index, where)
        else:
            self._update(index, where)

    def _update(self, index: "SearchIndex | None", where: str) -> None:
        if self.save_every is not None and self.save_every < 1:
            raise NestKALAError(f"--save-every must be 1 or more, not {self.save_every}")
        from ..hasher import Hasher
        from ..search.folder import update_from_folder
        from ..search.opening import create_index, save_index
        from ..search.provenance import about_model, hasher_of
        from ..utils.machine import decoding_workers

        folder = str(self.folder.resolve())
        fitted: list[str] = []
        if index is not None:
            hasher = hasher_of(index, self.model, where)
            if index.about.get("folder") != folder:
                raise NestKALAError(f"{where} is the index of {index.about.get('folder')}, not of {self.folder}")
        elif self.model is None:
            index, hasher, fitted = self._fitted(where, folder)
        else:
            hasher = Hasher.from_pretrained(self.model)
            index = create_index(where, hasher.lengths, about_model(hasher, self.model) | {"folder": folder})
        changes = update_from_folder(
            index,
            self.folder,
            hasher,
            allow_removal=self.allow_removal,
            workers=decoding_workers(self.workers),
            progress=not self.json,
            keep=lambda: save_index(index, where),
            keep_every=self.save_every or 10_000,
        )
        changes.added = sorted([*fitted, *changes.added])
        changes.unchanged -= len(fitted)
        doubts = _doubts(index, hasher)
        if self.json:
            print(json.dumps({"index": where, "images": len(index), **asdict(changes), "warnings": doubts}))
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
            f"{where}: {len(index)} images, {index.bits} bits each; {len(changes.added)} added, "
            f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.broken)} unreadable"
        )
        tell_of_tables(index)

    def _fitted(self, where: str, folder: str) -> "tuple[SearchIndex, Hasher, list[str]]":
        """A new index with a model that is fitted to the folder, and the images that it holds already."""
        from ..hasher import Hasher
        from ..images.listing import LeftOut, images_below
        from ..index.milvus import is_address
        from ..search.fitted import fit_to_folder
        from ..search.opening import create_index, index_beside
        from ..search.provenance import about_model, model_beside
        from ..utils.files import link_target
        from ..utils.machine import decoding_workers

        here = dict(images_below(self.folder, left_out := LeftOut()))
        if not here:
            others = f", only {left_out.formats_in_words()}" if left_out.other_formats else ""
            raise NestKALAError(f"{self.folder} holds no image{others}: there is nothing to fit codes to")
        beside = f"{index_beside(self.folder)}.milvus" if is_address(where) else str(link_target(Path(where)))
        if Path(beside).is_dir():
            raise NestKALAError(f"{where} is a folder: name a file")
        output, workers = model_beside(beside), decoding_workers(self.workers)
        found = fit_to_folder(self.folder, list(here), output, workers, progress=not self.json)
        hasher = Hasher.from_pretrained(output)
        if not self.json:
            how = f"fitted to {len(found.names)} images" if found.is_own else "as shipped, for want of images to fit to"
            print(f"{output}: codes {how}")
        index = create_index(where, hasher.lengths, about_model(hasher, str(output)) | {"folder": folder})
        index.add(found.codes, found.names, [here[name] for name in found.names])
        return index, hasher, found.names

    def _put_together(self, index: "SearchIndex | None", where: str) -> None:
        from tqdm import tqdm

        from ..search.opening import create_index, save_index
        from ..search.shards import read_plan, read_shards

        plan, shards = read_plan(self.folder), read_shards(self.folder)
        if index is None:
            index = create_index(where, plan.lengths, plan.about)
        elif index.about != plan.about:
            raise NestKALAError(f"{where} is an index of other images or of another model than {self.folder}")
        known = {name for name, _ in index.items()}  # which may be newer
        shown = tqdm(shards, total=plan.num_shards, unit="shard", disable=self.json)
        index.extend(shard.without(known) if known else shard for shard in shown)
        save_index(index, where)
        if self.json:
            print(json.dumps({"index": where, "images": len(index), "added": len(index) - len(known)}))
        else:
            print(f"{where}: {len(index)} images, {index.bits} bits each; {len(index) - len(known)} added")
            tell_of_tables(index)


def tell_of_tables(index: "SearchIndex") -> None:
    """Print what the tables of a file take, if it has any."""
    from ..index import PrefixIndex

    if isinstance(index, PrefixIndex) and index.tables_bytes:
        each = index.tables_bytes / len(index)
        print(f"tables for exact search: {each:.1f} bytes a code, {index.tables_bytes / 1e6:,.0f} MB")


def _doubts(index: "SearchIndex", hasher: "Hasher") -> list[str]:
    """Warnings of codes that say little, where they are at hand, and of class names that do."""
    from ..data.class_names import names_in_doubt
    from ..evaluation.collapse import Collapse
    from ..index import PrefixIndex

    found = Collapse.of(index.codes, index.bits).warnings() if isinstance(index, PrefixIndex) else []
    return found + (names_in_doubt(hasher.class_names) if hasher.spec.has_text_codes else [])
