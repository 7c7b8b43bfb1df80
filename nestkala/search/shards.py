"""Encode a collection of any size over processes and machines: `accelerate launch -m nestkala.encode ...`.

The output is a folder of shards, each an index file of its own images, and the list of all images. Shards are written
completely or not at all, so after any interruption the next run encodes the missing ones.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from pydantic import Field, TypeAdapter, ValidationError
from tqdm import tqdm

from ..hasher import Hasher
from ..images.dates import with_date
from ..images.decoding import is_below
from ..images.listing import LeftOut, images_below
from ..index import PrefixIndex
from ..utils.errors import NestKALAError, as_line
from ..utils.files import is_unfinished, remove_unfinished, replacing, write_text
from ..utils.limits import MAX_LENGTH
from ..utils.machine import compute_threads, decoding_workers
from ..utils.processes import PATIENCE, ending_process_group
from ..utils.text_files import parsed_json, read_json
from ..utils.validation import first_in_words
from ..utils.versions import check_version
from .image_folder import encoded
from .provenance import about_model, with_backend

PLAN, _LIST, _VERSION = "encoding.json", "images.jsonl", 1
MAX_SHARD_SIZE = 2**31 - 1
_A_HANDFUL = 5
"""If at least this many images of a shard are all gone, the folder itself is probably missing."""


@dataclass(frozen=True)
class Plan:
    """What a folder of shards contains.

    Attributes:
        about: model, its fingerprint, and the image folder, as stored in an index.
        lengths: the model's training lengths.
        images: number of images listed.
        shard_size: images per shard.
        version: format version.
        left_out: what was skipped when the images were listed.
    """

    about: dict[str, str]
    lengths: Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_LENGTH)], ...], Field(min_length=1)]
    images: Annotated[int, Field(ge=0)]
    shard_size: Annotated[int, Field(ge=1, le=MAX_SHARD_SIZE)]
    version: int = _VERSION
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)


@ending_process_group()
def encode_folder(
    folder: Path,
    output: Path,
    model: str,
    shard_size: int = 8192,
    workers: int | None = None,
    progress: bool = False,
    skip_unlisted: bool = False,
    backend: str = "torch",
) -> Plan:
    """Encode every image below a folder once, over all processes that the launcher started, or in this one.

    Memory holds one shard at a time, whatever the size of the collection. Images are listed once; use `nestkala index`
    to add later ones. After an interruption, encoding resumes with the missing shards, even with a different number of
    processes.

    Args:
        folder: folder of images; see `images_below` for which files count.
        output: folder to write, visible to all processes.
        model: run folder, or "owner/name" on the Hugging Face Hub.
        shard_size: images per shard, 1 to `MAX_SHARD_SIZE`.
        workers: decoding threads per process; 0 for none, None for one per core, at most 8.
        progress: show a progress bar for the first process's share.
        skip_unlisted: permanently skip what cannot be listed.
        backend: as for `Hasher.from_pretrained`.

    Raises:
        NestKALAError: the folder or model does not exist, the folder has no images or (unless skipped) something that
            cannot be listed, the codes do not nest, or the output holds something else.
    """
    if not 1 <= shard_size <= MAX_SHARD_SIZE:
        raise NestKALAError(f"shard size must be 1 to {MAX_SHARD_SIZE:,}, not {shard_size}")
    torch.set_num_threads(compute_threads())
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    with accelerator.local_main_process_first():  # may download
        hasher = Hasher.from_pretrained(model, _device(accelerator, backend), backend=backend)
    if not folder.is_dir():
        raise NestKALAError(f"{folder} is not a folder")
    about = about_model(hasher, model) | {"folder": str(folder.resolve())}
    missing: list[int] = []
    if accelerator.is_main_process:
        plan = _planned(folder, output, hasher.lengths, about, shard_size, progress, skip_unlisted)
        missing = _missing(output, plan)
    missing = broadcast_object_list([missing])[0]
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    plan = read_plan(output)

    total = sum(_size(plan, shard) for shard in mine)
    show = progress and accelerator.is_main_process and bool(mine)
    label = f"encoding, 1 of {accelerator.num_processes} processes" if accelerator.num_processes > 1 else "encoding"
    with tqdm(total=total, desc=label, unit="img", disable=not show) as bar:
        for shard, images in shard_images(output, plan, set(mine)):
            _encode_shard(hasher, folder, images, plan.about, decoding_workers(workers), bar).save(
                _path(output, shard), tables=False
            )
    accelerator.wait_for_everyone()
    return plan


def _device(accelerator: Accelerator, backend: str) -> torch.device:
    return accelerator.device if backend in ("torch", "auto") else torch.device("cpu")


def is_encoded(folder: Path) -> bool:
    """Whether `encode_folder` wrote or started writing this folder."""
    return (folder / PLAN).is_file()


def read_plan(output: Path) -> Plan:
    """Read the plan of a folder of shards.

    Raises:
        NestKALAError: there is none, or it is damaged or of another version.
    """
    try:
        found = read_json(output / PLAN)
        if isinstance(found, dict) and "version" in found:
            check_version(str(output / PLAN), found["version"], _VERSION)
        plan = TypeAdapter(Plan).validate_python(found)
    except ValidationError as error:
        raise NestKALAError(f"{output} does not hold encoded images: {PLAN}: {first_in_words(error)}") from None
    listed = (output / _LIST).stat().st_size if (output / _LIST).is_file() else 0
    if plan.images > listed:  # at least one byte per image; a wrong number could keep us busy forever
        raise NestKALAError(f"{output / _LIST} is damaged: it is too short for {plan.images} images")
    return plan


def read_shards(output: Path, verify: bool = True) -> Iterator[PrefixIndex]:
    """The shards of a finished encoding, one by one; `verify` as for `PrefixIndex.load`.

    Raises:
        NestKALAError: shards are missing or damaged.
    """
    plan = read_plan(output)
    if missing := _missing(output, plan):
        raise NestKALAError(
            f"{output} is not finished: {len(missing)} of {plan.num_shards} shards are missing; run nestkala encode "
            "again with the same arguments to resume"
        )
    return (_read_shard(_path(output, shard), verify) for shard in range(plan.num_shards))


def _read_shard(path: Path, verify: bool) -> PrefixIndex:
    try:
        shard = PrefixIndex.load(path, verify)
        unreadable(shard)
    except NestKALAError as error:
        raise NestKALAError(f"shard {path}: {error}; delete it and encode again") from None
    return shard


def unreadable(shard: PrefixIndex) -> list[str]:
    """The unreadable images of a shard, which have no code."""
    names = parsed_json(shard.about.get("unreadable", "null"), "the list of unreadable images")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise NestKALAError("its list of unreadable images is damaged")
    return names


def _planned(
    folder: Path,
    output: Path,
    lengths: tuple[int, ...],
    about: dict[str, str],
    shard_size: int,
    progress: bool,
    skip_unlisted: bool,
) -> Plan:
    """The plan of the output, created if there is none."""
    if is_encoded(output):
        plan = read_plan(output)
        begun = with_backend(plan.about) | {"shard size": plan.shard_size}
        for what, asked in (about | {"shard size": shard_size}).items():
            if what != "model" and begun.get(what) != asked:  # the model may have moved
                raise NestKALAError(
                    f"{output} was started with {what.replace('_', ' ')} {begun.get(what)}, not {asked}"
                )
        remove_unfinished(output)
        return plan
    there = output.iterdir() if output.is_dir() else [output] if output.exists() else []
    if not all(path.name == _LIST or is_unfinished(path) for path in there):
        raise NestKALAError(f"{output} exists but does not hold encoded images: choose another folder")
    remove_unfinished(output)
    count, left_out = 0, LeftOut()
    try:
        with replacing(output / _LIST) as temporary, temporary.open("w", encoding="utf-8") as file:
            for image in tqdm(images_below(folder, left_out), desc="listing", unit="img", disable=not progress):
                file.write(json.dumps(image) + "\n")
                count += 1
            _check_listing(folder, count, left_out, skip_unlisted)
    except NestKALAError:
        with suppress(OSError):  # if it was not empty before
            output.rmdir()
        raise
    left_out.unlisted = {as_line(path): why for path, why in left_out.unlisted.items()}  # paths may not be valid text
    plan = Plan(about, lengths, count, shard_size, left_out=left_out)
    write_text(output / PLAN, json.dumps(asdict(plan), indent=2) + "\n")
    return plan


def _check_listing(folder: Path, count: int, left_out: LeftOut, skip_unlisted: bool) -> None:
    """Raise NestKALAError for a list that must not be kept, since it is never made again."""
    if left_out.unlisted and not skip_unlisted:
        path, why = next(iter(left_out.unlisted.items()))
        more = f" and {len(left_out.unlisted) - 1} others" if len(left_out.unlisted) > 1 else ""
        raise NestKALAError(
            f"cannot list {str(folder / path)!r} ({why}){more}: nothing was encoded; use --skip-unlisted to skip it"
        )
    if not count:
        others = f", only {left_out.formats_in_words()}" if left_out.other_formats else ": is a disk not mounted?"
        raise NestKALAError(f"{folder} holds no images{others}")


def _path(output: Path, shard: int) -> Path:
    return output / f"{shard:06d}.index"


def _size(plan: Plan, shard: int) -> int:
    return min(plan.shard_size, plan.images - shard * plan.shard_size)


def _missing(output: Path, plan: Plan) -> list[int]:
    return [shard for shard in range(plan.num_shards) if not _path(output, shard).exists()]


def shard_images(output: Path, plan: Plan, wanted: set[int]) -> Iterator[tuple[int, dict[str, dict[str, Any]]]]:
    """Yield the images of each wanted shard from the list: {name: metadata}.

    Raises:
        NestKALAError: the list is damaged, or has a name that points outside the folder.
    """
    with (output / _LIST).open("rb") as file:
        for shard in range(max(wanted, default=-1) + 1):
            lines = list(islice(file, plan.shard_size))
            if shard in wanted:
                images = dict(filter(None, map(_listed, lines)))
                if len(images) != _size(plan, shard):
                    raise NestKALAError(f"{output / _LIST} is damaged: encode to another folder")
                yield shard, images


def _listed(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """Name and metadata of an image from a line of the list, or None if the line is invalid."""
    try:
        name, metadata = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    return (name, metadata) if isinstance(name, str) and is_below(name) and isinstance(metadata, dict) else None


def _encode_shard(
    hasher: Hasher, folder: Path, images: dict[str, Any], about: dict[str, str], workers: int, bar: "tqdm[Any]"
) -> PrefixIndex:
    names, codes, broken = list[str](), [hasher.encode([])], list[str]()
    for some, theirs, unread in encoded(hasher, lambda name: folder / name, list(images), workers):
        names += some
        codes.append(theirs)
        broken += unread
        bar.update(len(some) + len(unread))
    if len(broken) >= _A_HANDFUL and not names and not any((folder / name).is_file() for name in broken):
        raise NestKALAError(
            f"all {len(broken)} images of a shard are gone from {folder}, starting with {broken[0]!r}: is a disk no "
            "longer mounted? Run the same command again to encode the missing shards"
        )
    about = about | {"unreadable": json.dumps(broken)}
    return PrefixIndex.build(
        np.concatenate(codes),
        names,
        hasher.lengths[-1],
        [with_date(folder / name, images[name]) for name in names],
        about=about,
    )
