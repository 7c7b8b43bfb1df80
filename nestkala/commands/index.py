"""`nestkala index`."""

import json
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from ..utils.errors import NestKALAError
from .backend_flag import BackendFlag

if TYPE_CHECKING:
    from ..hasher import Hasher
    from ..index import SearchIndex
    from ..search.folder import Changes
    from ..search.following.watch import Watch
    from ..search.places import ImageFolders


@dataclass(frozen=True)
class Index:
    """Index folders of images, or update an existing index.

    Updating processes only new, changed and deleted files. Without --model, nothing needs to be trained: codes are
    fitted to the images themselves, and the model is saved in INDEX.model next to the index. If the folder was written
    by `nestkala encode`, images that are missing from the index are added.
    """

    paths: Positional[Annotated[tuple[str, ...], arg(metavar="FOLDER [FOLDER ...] [INDEX]")]]
    """folders of images, including subfolders, or one folder written by `nestkala encode`. Several folders make one
    index, with images named FOLDER/PATH. The index file may come last: nestkala index photos photos.index. An index
    file alone is updated from its own folders"""

    index: str | None = None
    """index to create or update (default: the file FOLDER.index). For PostgreSQL,
    postgresql://USER@HOST:PORT/DATABASE[#TABLE]; for Milvus, http://HOST:PORT[#COLLECTION], or a Milvus Lite file
    FILE.db[#COLLECTION]"""

    model: str | None = None
    """run folder, or "owner/name" on the Hugging Face Hub (default: the model of the existing index, or for a new
    index a model fitted to the images). If an existing index has a different model, all images are encoded again and
    the index is replaced when that is done"""

    exclude: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="PATTERN")]] = ()
    """files and folders to skip, in .gitignore syntax, such as "*.png" or /private/. The index remembers the patterns;
    new ones replace them, and --exclude "" removes them. You can also put a .nestkalaignore file with one pattern per
    line into a folder"""

    root: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FOLDER")]] = ()
    """new location of the index's image folder, if it has moved; NAME=FOLDER if there are several"""

    watch: bool = False
    """keep running and update the index when files change, until Ctrl-C"""

    watch_every: float | None = None
    """seconds between checks of the folders (default: 5, longer if a check is slow)"""

    workers: int | None = None
    """number of threads that decode images, 0 for none (default: one per core, at most 8)"""

    backend: BackendFlag = "torch"

    save_every: int | None = None
    """images to encode between saves, and the most work an interruption can lose (default: 10,000)"""

    partitions: int | None = None
    """divide a new PostgreSQL table by the first bits of the codes into this many partitions, a power of two"""

    allow_removal: bool = False
    """remove missing images from the index even if most are gone, or all from a subfolder that still exists"""

    json: bool = False
    """print what changed as JSON; with --watch, one line per update"""

    def run(self) -> None:
        from ..index.local.index_file import writing_alone
        from ..search.opening import is_address
        from ..utils.files import check_writable

        folders, where = self._named()
        self._check(where)
        if not is_address(where):
            check_writable(Path(where))
        with nullcontext() if is_address(where) else writing_alone(Path(where)):
            watch = self._run(folders, where)
        if watch is not None and self.watch:
            self._watch(watch, where)

    def _run(self, folders: list[Path], where: str) -> "Watch | None":
        """Do everything except watching; returns the watch to start, if any."""
        from ..search.opening import find_index
        from ..search.shards import is_encoded

        index = find_index(where)
        if self.partitions is not None and index is not None:
            raise NestKALAError("--partitions applies to a new index, and this one already exists")
        if len(folders) == 1 and is_encoded(folders[0]):
            self._check_shards(folders[0])
            self._put_together(index, folders[0], where)
            return None
        return self._update(index, folders, where)

    def _named(self) -> tuple[list[Path], str]:
        """The folders and the index that the arguments name."""
        from ..search.opening import index_beside, is_address

        if self.index is not None:
            return list(map(Path, self.paths)), self.index
        if not self.paths:
            raise NestKALAError("give a folder of images, or an index to update")
        *others, last = self.paths
        if is_address(last) or Path(last).is_file() or (others and not Path(last).is_dir()):
            return list(map(Path, others)), last
        if others:
            raise NestKALAError(f"{' and '.join(self.paths)} are folders: name their index with --index FILE")
        return [Path(last)], index_beside(Path(last))

    def _check(self, where: str) -> None:
        from ..search.opening import is_in_postgres

        if self.partitions is not None:
            if not is_in_postgres(where):
                raise NestKALAError("--partitions applies only to PostgreSQL: leave it out")
            from ..index.postgres.table import check_partitions

            check_partitions(self.partitions)
        if self.save_every is not None and self.save_every < 1:
            raise NestKALAError(f"--save-every must be 1 or more, not {self.save_every}")
        if self.watch_every is not None and not self.watch:
            raise NestKALAError("--watch-every has no effect without --watch: add --watch")
        if self.watch_every is not None and not 0 < self.watch_every < threading.TIMEOUT_MAX:
            raise NestKALAError(f"--watch-every must be more than 0 seconds, not {self.watch_every:g}")

    def _check_shards(self, folder: Path) -> None:
        if self.model is not None:
            raise NestKALAError(f"the codes in {folder} already have a model: leave out --model")
        if self.workers is not None or self.save_every is not None or self.backend != "torch":
            raise NestKALAError(f"{folder} already holds codes: leave out --workers, --save-every and --backend")
        if self.exclude or self.root or self.watch:
            raise NestKALAError(f"{folder} holds codes, not images: leave out --exclude, --root and --watch")

    def _update(self, index: "SearchIndex | None", folders: list[Path], where: str) -> "Watch":
        from ..search.folder import update_from_folder
        from ..search.following.conversion import converted, forget_conversion
        from ..search.following.membership import joined, note, patterns_of
        from ..search.following.mixing import check_mixing
        from ..search.following.watch import Watch
        from ..search.opening import save_index, shown_address
        from ..search.provenance import about_model, hasher_of
        from ..utils.machine import decoding_workers

        exclude = patterns_of(index, self.exclude)
        options: dict[str, Any] = {
            "exclude": exclude,
            "allow_removal": self.allow_removal,
            "workers": decoding_workers(self.workers),
            "progress": not self.json,
            "keep_every": self.save_every or 10_000,
        }
        fitted, notes, other = list[str](), list[str](), None
        if index is None:
            index, hasher, asked, fitted = self._made(folders, where, exclude)
        else:
            index, together, asked = joined(index, folders, where, self.root)
            if self.model is None:
                hasher = hasher_of(index, None, where, self.backend)
            else:
                hasher = self._loaded(self.model)
                other = hasher if index.about.get("model_fingerprint") not in (None, hasher.fingerprint) else None
            if other is None:
                notes = check_mixing(index, hasher, asked, exclude, partial(hasher_of, index, self.model, where))
            note(index, together, exclude, where)
        if other is not None:
            about = index.about | about_model(other, str(self.model))
            index, changes = converted(index, where, about, together.check_there(where), other, **options)
            if not self.json:
                print(f"{shown_address(where)}: encoded all images again with {self.model}")
        else:
            changes = update_from_folder(index, asked, hasher, keep=lambda: save_index(index, where), **options)
            forget_conversion(index, where)
        changes.added = sorted([*fitted, *changes.added])
        changes.unchanged -= len(fitted)
        self._tell(index, where, changes, notes + _doubts(index, hasher))
        return Watch(where, asked, hasher, exclude, changes.broken, decoding_workers(self.workers))

    def _made(
        self, folders: list[Path], where: str, exclude: list[str]
    ) -> "tuple[SearchIndex, Hasher, ImageFolders, list[str]]":
        """A new index, its model and folders, and the images it already holds."""
        from ..search.following.membership import notes_on
        from ..search.opening import create_index, shown_address
        from ..search.places import ImageFolders
        from ..search.provenance import about_model

        if not folders:
            raise NestKALAError(f"no index at {shown_address(where)}: to create one, give its image folders")
        if self.root:
            raise NestKALAError(
                f"--root gives the new folder of an existing index, and there is no index at {shown_address(where)}"
            )
        places = ImageFolders.of(folders)
        if self.model is None:
            index, hasher, fitted = self._fitted(where, places, exclude)
            return index, hasher, places, fitted
        hasher = self._loaded(self.model)
        about = about_model(hasher, self.model) | notes_on(places, exclude, where)
        return create_index(where, hasher.lengths, about, self.partitions), hasher, places, []

    def _tell(
        self, index: "SearchIndex", where: str, changes: "Changes", doubts: Sequence[str] = (), again: bool = False
    ) -> None:
        from ..search.opening import shown_address

        shown = shown_address(where)
        if self.json:
            answer = {"index": shown, "images": len(index), **asdict(changes), "warnings": list(doubts)}
            print(json.dumps(answer), flush=True)
            return
        for name in changes.broken:
            print(f"warning: cannot read {name!r}")
        for line in [] if again else changes.left_out.in_words():
            print(line)
        if not again and changes.left_out.unlisted:
            print("note: images that cannot be listed stay in the index")
        for line in doubts:
            print(line)
        print(
            f"{shown}: {len(index)} images, {index.bits} bits each; {len(changes.added)} added, "
            f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.broken)} unreadable",
            flush=True,
        )
        tell_of_tables(index)

    def _watch(self, watch: "Watch", where: str) -> None:
        from ..search.following.watch import ending_on_sigterm
        from ..search.opening import shown_address

        print(f"watching {watch.folders} (press Ctrl-C to stop)", file=sys.stderr, flush=True)
        with ending_on_sigterm(), suppress(KeyboardInterrupt):
            watch.run(
                self.watch_every or 5,
                tell=lambda index, changes: self._tell(index, where, changes, again=True),
                warn=lambda line: print(line, file=sys.stderr, flush=True),
            )
        print(f"stopped watching; {shown_address(where)} is saved", file=sys.stderr)

    def _fitted(
        self, where: str, folders: "ImageFolders", exclude: list[str]
    ) -> "tuple[SearchIndex, Hasher, list[str]]":
        """A new index with a model fitted to the folders, and the images it already holds."""
        from ..images.listing import LeftOut
        from ..search.fitted import fit_to_folder
        from ..search.folder import dated, images_in
        from ..search.following.membership import notes_on
        from ..search.opening import create_index, index_beside, is_address, is_in_postgres
        from ..search.provenance import about_model, model_beside
        from ..utils.files import link_target
        from ..utils.machine import decoding_workers

        here = images_in(folders, exclude, left_out := LeftOut())
        if not here:
            others = f", only {left_out.formats_in_words()}" if left_out.other_formats else ""
            holds = "hold" if folders.are_several else "holds"
            raise NestKALAError(f"{folders} {holds} no images{others}: there is nothing to fit codes to")
        first = next(iter(folders.paths.values()))
        beside = str(link_target(Path(where)))
        if is_address(where):
            beside = f"{index_beside(first)}.{'postgresql' if is_in_postgres(where) else 'milvus'}"
        if Path(beside).is_dir():
            raise NestKALAError(f"{where} is a folder: name a file")
        output, workers = model_beside(beside), decoding_workers(self.workers)
        found = fit_to_folder(folders, list(here), output, workers, not self.json, backend=self.backend)
        hasher = self._loaded(str(output))
        if not self.json:
            how = f"fitted to {len(found.names)} images" if found.is_own else "built in, as there are too few images"
            print(f"{output}: codes {how}")
        about = about_model(hasher, str(output)) | notes_on(folders, exclude, where)
        index = create_index(where, hasher.lengths, about, self.partitions)
        index.add(found.codes, found.names, dated(folders, found.names, here))
        return index, hasher, found.names

    def _put_together(self, index: "SearchIndex | None", folder: Path, where: str) -> None:
        from tqdm import tqdm

        from ..search.opening import create_index, save_index, shown_address
        from ..search.provenance import with_backend
        from ..search.shards import read_plan, read_shards

        plan, shards = read_plan(folder), read_shards(folder)
        shown = shown_address(where)
        if index is None:
            index = create_index(where, plan.lengths, plan.about, self.partitions)
        elif _identity(with_backend(index.about)) != _identity(with_backend(plan.about)):
            raise NestKALAError(f"{shown} has different images, or a different model or backend, from {folder}")
        known = {name for name, _ in index.items()}  # may be newer than the shards
        watched = tqdm(shards, total=plan.num_shards, unit="shard", disable=self.json)
        index.extend(shard.without(known) if known else shard for shard in watched)
        save_index(index, where)
        added = len(index) - len(known)
        if self.json:
            print(json.dumps({"index": shown, "images": len(index), "added": added}))
        else:
            print(f"{shown}: {len(index)} images, {index.bits} bits each; {added} added")
            tell_of_tables(index)

    def _loaded(self, model: str) -> "Hasher":
        from ..hasher import Hasher

        return Hasher.from_pretrained(model, backend=self.backend)


def tell_of_tables(index: "SearchIndex") -> None:
    """Print the size of an index file's tables, if it has any."""
    from ..index import PrefixIndex

    if isinstance(index, PrefixIndex) and index.tables_bytes:
        each = index.tables_bytes / len(index)
        print(f"tables for exact search: {each:.1f} bytes per code, {index.tables_bytes / 1e6:,.0f} MB")


def _doubts(index: "SearchIndex", hasher: "Hasher") -> list[str]:
    """Warnings about uninformative codes, if they are at hand, and about uninformative class names."""
    from ..data.class_names import names_in_doubt
    from ..evaluation.collapse import Collapse
    from ..index import PrefixIndex

    found = Collapse.of(index.codes, index.bits).warnings() if isinstance(index, PrefixIndex) else []
    return found + (names_in_doubt(hasher.class_names) if hasher.spec.has_text_codes else [])


def _identity(about: Mapping[str, str]) -> tuple[str | None, ...]:
    """What two sets of codes must share to be searched together."""
    return tuple(about.get(key) for key in ("model_fingerprint", "folder", "backend"))
