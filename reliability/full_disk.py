"""Work on a disk that fills up, and continues once there is space again."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from nestkala.index import PrefixIndex
from nestkala.tokens.cache import cache_size

from .finding import Finding
from .kills import BATCH, cached, fill_cache, index_content, make_model, run_files, shard_files, training
from .workers import Call, Workers, command, done

DISK, IMAGES = "64m", 100


@contextmanager
def small_disk() -> Iterator[Path]:
    """A small in-memory file system in its own folder.

    Raises:
        PermissionError: if this process may not mount one.
    """
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            raise PermissionError("cannot mount a small disk to fill: this needs root")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(disk: Path, but_for: int) -> Iterator[None]:
    """Within this context, all of the disk is used except for this many bytes."""
    ballast, state = disk / "ballast", os.statvfs(disk)
    ballast.write_bytes(bytes(state.f_bavail * state.f_frsize - but_for))
    try:
        yield
    finally:
        ballast.unlink()


@dataclass(frozen=True)
class Attempt:
    """Work that runs into a full disk.

    Attributes:
        what: description, for the table.
        before: what to do while there is space, given the folder.
        call: call that runs into the full disk, and is repeated once there is space.
        room: free bytes for the call, given the folder in which it has been completed.
        kept: how much of the work exists and can be read.
        unit: unit of `kept`.
        result: what must equal the result with enough space.
        code: expected exit code with a full disk; 0 if the work can be done anyway.
    """

    what: str
    before: Callable[[Path], object]
    call: Callable[[Path], Call]
    room: Callable[[Path], int]
    kept: Callable[[Path], int]
    unit: str
    result: Callable[[Path], object]
    code: int = 2


def run(folder: Path) -> list[Finding]:
    """Fill the disk during training, encoding, indexing and filling the token cache."""
    (images, model), log = make_model(folder, IMAGES), folder / "log"
    return [run_full(attempt, log) for attempt in all_attempts(images, model, log)]


def run_full(attempt: Attempt, log: Path) -> Finding:
    """Do the work once with enough space, and once on a disk that fills up and then has space again.

    Raises:
        PermissionError: if no small disk can be mounted.
        RuntimeError: if the work fails despite enough space.
    """
    with small_disk() as disk:
        place = disk / "place"  # the same for both, because files may contain the path
        attempt.before(place)
        done([attempt.call(place)], log)
        expected, room = attempt.result(place), attempt.room(place)
        shutil.rmtree(place)

        attempt.before(place)
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        with filled(disk, room):
            workers = Workers([attempt.call(place)], log)
            code, said = workers.wait(), workers.said
        errors = [line for line in said.splitlines() if "No space left on device" in line]
        kept, left = attempt.kept(place), list(place.rglob(".writing*"))
        unharmed = all(path.read_bytes() == content for path, content in before.items())
        done([attempt.call(place)], log)
        same = attempt.result(place) == expected
    clear = code == attempt.code and len(errors) == 1 and "Traceback" not in said
    return Finding(
        attempt.what,
        f"exit code {code}, {len(errors)} error line; {kept} {attempt.unit} kept, {len(left)} half-written files left; "
        f"{'bit-for-bit identical' if same else 'different'} once there is space",
        "one clear line, the last good state kept, the same result",
        clear and kept > 0 and not left and unharmed and same,
        {"said": errors, "code": code},
    )


def all_attempts(images: Path, model: Path, log: Path) -> list[Attempt]:
    """Training, encoding, indexing and the token cache."""
    made_with = ("--model", model, "--workers", 0)

    def index(place: Path) -> Call:
        return command("index", place / "photos", place / "photos.index", *made_with, "--save-every", 1000)

    def index_of_half(place: Path) -> None:
        shutil.copytree(images, place / "photos")
        half = sorted((place / "photos").rglob("*.png"))[::2]
        hidden = [path.rename(path.with_name(f".{path.name}")) for path in half]
        done([index(place)], log)
        for path in hidden:
            path.rename(path.with_name(path.name[1:]))

    return [
        Attempt(
            "training; disk full at the second checkpoint",
            lambda place: place.mkdir(),
            lambda place: training(images, place / "run", 3, "--cache-gb", 0),
            lambda place: (3 * (place / "run" / "checkpoint.safetensors").stat().st_size) // 2,
            lambda place: _epoch(place / "run" / "checkpoint.safetensors"),
            "epoch",
            run_files,
        ),
        Attempt(
            "encoding; disk full after some shards",
            lambda place: place.mkdir(),
            lambda place: command("encode", images, place, *made_with, "--shard-size", 5),
            lambda _: 50_000,
            lambda place: sum(len(PrefixIndex.load(path)) for path in place.glob("[0-9]*.index")),
            "images",
            shard_files,
        ),
        Attempt(
            "updating an index",
            index_of_half,
            index,
            lambda _: 4_000,
            lambda place: len(PrefixIndex.load(place / "photos.index")),
            "images",
            lambda place: index_content(place / "photos.index"),
        ),
        Attempt(
            "filling the token cache",
            lambda place: place.mkdir(),
            lambda place: Call(fill_cache, (images, place)),
            lambda _: 300_000,
            lambda place: BATCH * cache_size(place).segments,
            "images",
            lambda place: cached(images, place),
            code=0,
        ),
    ]


def _epoch(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="np") as file:
        return int(file.metadata()["epoch"])
