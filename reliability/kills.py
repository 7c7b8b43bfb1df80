"""Work that is killed at random moments, resumed, and compared with work that was not interrupted."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from tqdm import tqdm

from nestkala.backbones import load_backbone
from nestkala.cli import main
from nestkala.data import FileDataset
from nestkala.hasher import Hasher
from nestkala.index import PrefixIndex
from nestkala.index.local.index_file import IndexFile
from nestkala.search.following.watch import Watch
from nestkala.search.places import ImageFolders
from nestkala.search.shards import read_shards
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.tokens.shared import SharedTokenSource
from nestkala.tokens.source import TokenSource
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import is_unfinished

from .finding import Finding
from .workers import Call, Workers, command, done, launched

CLASSES, BATCH = ("circle", "square", "star", "stripe"), 8


@dataclass(frozen=True)
class Work:
    """Work that takes a while and writes files in a folder.

    Attributes:
        what: description, for the table.
        calls: the processes that do or resume it, given the folder and its contents.
        result: what must be the same whether it was killed or not.
        victims: number of processes that are killed; None for all.
        allowed: whether what a kill leaves in the given folder is allowed.
    """

    what: str
    calls: Callable[[Path], Sequence[Call]]
    result: Callable[[Path], object]
    victims: int | None = None
    allowed: Callable[[Path], bool] = lambda _: True


def survive(work: Work, kills: int, folder: Path, seed: int = 0) -> Finding:
    """Kill the work this many times, each time from its start and at a new random moment, and resume it.

    Every second kill waits from that moment until a file is being written.

    Args:
        work: work to kill.
        kills: number of kills.
        folder: working folder; must not exist.
        seed: seed for the moments, uniform between start and end.

    Raises:
        RuntimeError: if the work fails without a kill, or after one.
    """
    folder.mkdir(parents=True)
    done([Call(bool, ())], folder / "log")  # starts the fork server, whose time does not count
    started = time.perf_counter()
    done(work.calls(folder / "uninterrupted"), folder / "log")
    seconds = time.perf_counter() - started
    expected = work.result(folder / "uninterrupted")

    rng, killed, cut, tries = random.Random(seed), 0, 0, 0
    different: list[object] = []
    bar = tqdm(total=kills, desc=work.what, unit="kill")
    while killed < kills:
        place = folder / "killed"
        shutil.rmtree(place, ignore_errors=True)
        workers = Workers(work.calls(place), folder / "log")
        time.sleep(rng.uniform(0, seconds))
        tries += 1
        if tries % 2 == 0:  # while a file is being written, which random moments rarely hit
            while workers.running and not _unfinished(place):
                pass
        hit = workers.kill(work.victims)
        workers.wait()
        if not hit:  # it finished earlier this time
            continue
        killed += 1
        cut += _unfinished(place)
        if not work.allowed(place):
            different.append("state after the kill")
        done(work.calls(place), folder / "log")
        if (found := work.result(place)) != expected:
            different.append(_different(found, expected))
        bar.update()
    bar.close()
    shutil.rmtree(folder)
    equal = killed - min(killed, len(different))
    return Finding(
        work.what,
        f"{equal} of {killed} ended bit-for-bit identical; {cut} kills cut a file that was being written",
        "all bit-for-bit identical",
        not different,
        {"kills": killed, "different": different, "cut_writes": cut, "seconds_uninterrupted": seconds},
    )


def _unfinished(place: Path) -> bool:
    """Whether a file is being written there, or an index is being appended to."""
    written = any(files and is_unfinished(Path(folder)) for folder, _, files in os.walk(place))
    return written or any(map(_is_being_appended_to, [*place.glob("[!.]*.index"), *place.glob("[!.]*.converting")]))


def _is_being_appended_to(index: Path) -> bool:
    try:
        return IndexFile.read(index, verify=False).end < index.stat().st_size
    except (NestKALAError, FileNotFoundError):  # it was replaced or deleted meanwhile
        return False


def _different(found: object, expected: object) -> object:
    """The files that differ, if the results list files."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return sorted(name for name in found | expected if found.get(name) != expected.get(name))
    return "everything"


def run(folder: Path, kills: int = 30) -> list[Finding]:
    """Kill everything that takes long, with one process and with two."""
    images, model = make_model(folder, 100)
    return [survive(work, kills, folder / "work") for work in all_work(images, model)]


def all_work(images: Path, model: Path) -> list[Work]:
    """Training, encoding, indexing and the token cache, with one process and with two."""
    encode = ("encode", images, "--model", model, "--shard-size", 5, "--workers", 0)
    index = ("index", images, "--model", model, "--save-every", 5, "--workers", 0)
    other = model.with_name("other model")

    def tokens(place: Path) -> object:
        return cached(images, place)

    def encoding(place: Path, processes: int) -> list[Call]:
        return launched(command(*encode[:2], place, *encode[2:]), processes)

    return [
        Work("training", lambda place: _training(images, place, 1), run_files),
        Work("training in two processes, both killed", lambda place: _training(images, place, 2), run_files),
        Work("encoding a folder", lambda place: encoding(place, 1), shard_files),
        Work("encoding in two processes, both killed", lambda place: encoding(place, 2), shard_files),
        Work(
            "building an index",
            lambda place: [command(*index[:2], place / "photos.index", *index[2:])],
            lambda place: index_content(place / "photos.index"),
        ),
        Work(
            "appending to an index",
            lambda place: [Call(append_to_index, (place / "some.index",))],
            lambda place: index_content(place / "some.index"),
        ),
        Work(
            "converting an index to another model",
            lambda place: [Call(convert_index, (images, model, other, place / "photos.index"))],
            lambda place: index_content(place / "photos.index"),
            allowed=lambda place: is_whole(place / "photos.index", images),
        ),
        Work(
            "watching a growing folder",
            lambda place: [Call(follow_folder, (images, model, place))],
            lambda place: index_content(place / "photos.index", with_notes=False),
        ),
        Work("filling the token cache", lambda place: [Call(fill_cache, (images, place))], tokens),
        Work(
            "two processes filling one token cache, one killed",
            lambda place: [Call(fill_cache, (images, place, backwards)) for backwards in (False, True)],
            tokens,
            victims=1,
        ),
        *(
            Work(
                f"two processes sharing the pass through the trunk, {who} killed",
                lambda place: launched(Call(share_cache, (images, place)), 2),
                tokens,
                victims=victims,
            )
            for who, victims in (("one", 1), ("both", None))
        ),
    ]


def make_images(folder: Path, count: int) -> Path:
    """A class-folder tree of small noise images."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return folder


def make_model(folder: Path, count: int) -> tuple[Path, Path]:
    """This many images, and the run folder of a model briefly trained on some of them."""
    images, model = make_images(folder / "images", count), folder / "model"
    done([training(images, model, epochs=1)], folder / "log")
    done([training(images, folder / "other model", 1, "--seed", 1)], folder / "log")
    return images, model


def training(images: Path, run: Path, epochs: int = 20, *more: object) -> Call:
    """Training on these images, with a checkpoint after every epoch; it resumes where it was killed."""
    if (run / "config.yaml").exists():
        return command("train", "--resume", run, "--epochs", epochs)
    small = ("--shots", 8, "--lengths", "4,12,20", "--anchors", "orthonormal")
    kept = ("--checkpoint-every", 1) if epochs else ()
    cache = ("--cache", run.parent / "cache", "--workers", 0, "--threads", 1)
    return command("train", "--data", images, "--output", run, "--epochs", epochs, *small, *kept, *cache, *more)


def _training(images: Path, place: Path, processes: int) -> list[Call]:
    return launched(training(images, place / "run"), processes)


def run_files(place: Path) -> object:
    """The contents of a run folder, except for times and its own path."""
    run, found = place / "run", dict[str, object]()
    for path in run.iterdir():
        if path.name == "checkpoint.safetensors":
            with safe_open(path, framework="np") as file:
                tensors = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118 - not a mapping
                found[path.name] = tensors | file.metadata() | {"seconds": None, "checksum": None}
        elif path.name == "metrics.json":
            found[path.name] = json.loads(path.read_text(encoding="utf-8")) | {"seconds": None}
        else:
            found[path.name] = _content(path).replace(os.fsencode(place), b"")
    return found


def shard_files(place: Path) -> object:
    """The contents of a folder of shards, after checking that they contain every image exactly once."""
    listed = [json.loads(line)[0] for line in (place / "images.jsonl").read_text(encoding="utf-8").splitlines()]
    held = [name for shard in read_shards(place) for name in shard.ids]
    if sorted(held) != sorted(listed):
        raise AssertionError(f"{len(listed)} images were listed, but the shards contain {len(held)}")
    indexes = {path.name: index_content(path) for path in place.glob("[0-9]*.index")}
    return {path.name: _content(path) for path in place.iterdir()} | indexes


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b"a folder"


def index_content(path: Path, with_notes: bool = True) -> object:
    """The contents of an index file; its bytes may differ, depending on what was appended when."""
    index = PrefixIndex.load(path)
    return index.bits, index.about if with_notes else {}, index.codes.tobytes(), list(index.items())


def append_to_index(path: Path) -> None:
    """Add 60,000 codes to an index, 3,000 at a time, and remove some; it resumes where it was killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index = PrefixIndex.load(path) if path.exists() else PrefixIndex.empty(64)
    for begin in range(0, 60_000, 3_000):
        names = [str(number) for number in range(begin, begin + 3_000)]
        if index.get(names[1]) is not None:  # this one is never removed
            continue
        index.add(np.random.default_rng(begin).integers(0, 256, (3_000, 8), dtype=np.uint8), names)
        index.remove(names[::10])
        if begin:
            index.remove([str(number) for number in range(begin - 3_000 + 5, begin, 100)])
        index.save(path)


def convert_index(images: Path, model: Path, other: Path, path: Path) -> int:
    """Convert the index of some images, which is made beside the model if need be, to another model."""
    old, options = model.with_name("old.index"), ("--save-every", "5", "--workers", "0")
    if not old.exists() and (code := main(["index", str(images), str(old), "--model", str(model)])):
        return code
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(old, path.with_suffix(".old"))
        path.with_suffix(".old").replace(path)
    return main(["index", str(images), str(path), "--model", str(other), *options])


def is_whole(path: Path, images: Path) -> bool:
    """Whether an index, of whichever model, holds all images, if it is there yet."""
    return not path.exists() or len(PrefixIndex.load(path)) == sum(1 for _ in images.rglob("*.png"))


def follow_folder(images: Path, model: Path, place: Path) -> int:
    """Copy images into a folder, five at a time, and let its index follow; it resumes where it was killed."""
    photos, path, files = place / "photos", place / "photos.index", sorted(images.rglob("*.png"))
    photos.mkdir(parents=True, exist_ok=True)
    hasher, watch = Hasher.from_pretrained(model, "cpu"), None
    for begin in range(0, len(files), 5):
        for file in files[begin : begin + 5]:
            if not (photos / file.name).exists():
                copied = place / file.name
                shutil.copy(file, copied)
                os.utime(copied, (1e9, 1e9))  # which were not written just now
                copied.replace(photos / file.name)
        if not path.exists() and (code := main(["index", str(photos), str(path), "--model", str(model)])):
            return code
        watch = watch or Watch(str(path), ImageFolders.of(photos), hasher)
        watch.look()
    return 0


def fill_cache(images: Path, cache: Path, backwards: bool = False) -> None:
    """Write the tokens of all images to a cache, a few at a time."""
    dataset = _dataset(images)
    source = TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0, TokenCache(cache, "images", 1e9))
    starts = range(0, len(dataset), BATCH)
    for start in reversed(starts) if backwards else starts:
        list(source.batches(dataset, range(start, min(start + BATCH, len(dataset)))))


def share_cache(images: Path, cache: Path) -> None:
    """Like `fill_cache`, by launched processes together; each exits without destroying the group, as after an error."""
    torch.set_num_threads(1)
    accelerator, dataset = Accelerator(), _dataset(images)
    source = TokenSource(load_backbone("tiny", 1), "fp32", BATCH, 0, TokenCache(cache, "images", 1e9))
    shared, count = SharedTokenSource(source, accelerator), 2 * BATCH
    alone = TokenSource(source.backbone, "fp32", BATCH, 0)
    for start in range(0, len(dataset), count):
        some = range(start, min(start + count, len(dataset)))
        if not torch.equal(
            torch.cat(list(shared.batches(dataset, some))), torch.cat(list(alone.batches(dataset, some)))
        ):
            raise AssertionError(f"tokens of images {some} differ from those of a single process")


def cached(images: Path, cache: Path) -> object:
    """The tokens of all images, only from the cache."""
    kept, dataset = TokenCache(cache, "images", 1e9), _dataset(images)
    return [kept[image_key(dataset.read(index))].numpy().tobytes() for index in range(len(dataset))]


def _dataset(images: Path) -> FileDataset:
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    return FileDataset(names=names, targets=np.ones((len(names), 1), bool), class_names=("image",), root=images)
