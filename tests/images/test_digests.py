"""Digests of files: always those of what is in them, and read again only where a file has changed."""

import errno
import os
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from leftovers import last_used, unfinished
from PIL import Image
from safetensors.torch import load_file, save_file

from nestkala.backbones import load_backbone
from nestkala.data import ArrayDataset, FileDataset, ImageDataset, load_dataset
from nestkala.images import digests
from nestkala.images.digests import FILE, Digests
from nestkala.tokens.cache import TokenCache, clear_cache, image_key
from nestkala.tokens.source import TokenSource

WRITER = """
import sys
from pathlib import Path
from nestkala.images import digests

digests._SETTLED_NS = 0
print("ready", flush=True)
input()
for path in sys.argv[2:]:
    remembered = digests.Digests(Path(sys.argv[1]))
    remembered.of(Path(path))
    remembered.save()
"""


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files that tests have just written for old ones."""
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read, in order."""
    names: list[str] = []
    read_bytes = Path.read_bytes

    def noted(self: Path) -> bytes:
        if self.suffix == ".png":
            names.append(self.name)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return names


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "files").mkdir()
    paths = [tmp_path / "files" / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(b"content %d" % number)
    return paths


def right(path: Path) -> bytes:
    with path.open("rb") as file:
        return blake2b(file.read(), digest_size=16).digest()


def ask(folder: Path, files: list[Path]) -> None:
    """Digests of these files as a new run gets them; they must be right."""
    remembered = Digests(folder)
    assert [remembered.of(path) for path in files] == [right(path) for path in files]
    remembered.save()


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path, files: list[Path], reads: list[str]) -> None:
    ask(tmp_path, files)
    assert len(reads) == 5
    ask(tmp_path, files)
    ask(tmp_path, files[::-1])
    assert len(reads) == 5


def rewritten(path: Path) -> None:
    path.write_bytes(b"CONTENT 0")


def rewritten_with_its_old_times(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"CONTENT 0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_with_its_old_times(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"CONTENT 0")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def linked_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("1.png"))


@pytest.mark.parametrize(
    "change", [rewritten, rewritten_with_its_old_times, replaced_with_its_old_times, linked_elsewhere]
)
def test_a_file_that_has_changed_is_read_again(tmp_path: Path, files: list[Path], change: object) -> None:
    ask(tmp_path, files)
    assert callable(change)
    change(files[0])
    ask(tmp_path, files)


@pytest.mark.parametrize(("age", "is_kept"), [(1.0, False), (3.0, True)])
def test_a_file_of_this_moment_is_not_remembered(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, age: float, is_kept: bool
) -> None:
    """It may change again within one tick of the clock."""
    monkeypatch.undo()
    now = files[0].stat().st_ctime_ns + int(age * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: now)
    ask(tmp_path, files[:1])
    assert (tmp_path / FILE).exists() == is_kept


def test_what_was_seen_last_is_kept_within_the_bound(
    tmp_path: Path, files: list[Path], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_MOST", 3)
    ask(tmp_path, files[:3])
    ask(tmp_path, [files[0], files[3]])
    assert load_file(tmp_path / FILE)["digests"].shape == (3, 32)
    reads.clear()
    ask(tmp_path, [files[0], files[3], files[2]])
    assert reads == []


def test_processes_that_write_at_once_do_no_harm(tmp_path: Path, files: list[Path]) -> None:
    shares = (files[:3], files[2:])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), *map(str, share)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for share in shares
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert not list(tmp_path.glob(".writing*"))
    rows = load_file(tmp_path / FILE)["digests"]
    assert {row[16:].numpy().tobytes() for row in rows} <= {right(path) for path in files}
    assert len(rows) >= 3
    ask(tmp_path, files)


@pytest.mark.parametrize("how", ["empty", "cut", "a bit", "other tensors", "of another shape", "newer", "a folder"])
def test_damaged_digests_are_left_aside(
    how: str, tmp_path: Path, files: list[Path], reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    ask(tmp_path, files)
    kept = tmp_path / FILE
    with kept.open("rb") as file:
        whole = bytearray(file.read())
    match how:
        case "empty":
            kept.write_bytes(b"")
        case "cut":
            kept.write_bytes(whole[:-40])
        case "a bit":
            whole[-1] ^= 1
            kept.write_bytes(whole)
        case "other tensors":
            save_file({"tokens": torch.zeros(3)}, kept)
        case "of another shape":
            save_file({"digests": torch.zeros(3, 31, dtype=torch.uint8)}, kept, {"version": "1"})
        case "newer":
            save_file({"digests": torch.zeros(3, 32, dtype=torch.uint8)}, kept, {"version": "9"})
        case "a folder":
            kept.unlink()
            kept.mkdir()
    reads.clear()
    ask(tmp_path, files)
    assert sorted(reads) == [path.name for path in files]
    assert str(kept) in caplog.text


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(digests, "save_tensors", full)
    remembered = Digests(tmp_path)
    for path in files:
        assert remembered.of(path) == right(path)
        remembered.save()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_clearing_the_cache_forgets(tmp_path: Path, files: list[Path]) -> None:
    ask(tmp_path / "cache", files)
    unfinished(tmp_path / "cache" / FILE)
    clear_cache(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_what_a_killed_process_left_is_removed_in_time(tmp_path: Path) -> None:
    left = unfinished(tmp_path / FILE)
    Digests(tmp_path)
    assert left.exists()
    for path in (left, *left.iterdir()):
        last_used(path, 3700)
    Digests(tmp_path)
    assert not left.exists()


# Keys of the images of a data set


def in_files(folder: Path, pixels: np.ndarray) -> FileDataset:
    names = [f"{number}.png" for number in range(len(pixels))]
    for name, image in zip(names, pixels, strict=True):
        Image.fromarray(image).save(folder / name)
    return FileDataset(names=names, targets=np.ones((len(names), 1), bool), class_names=("a",), root=folder)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), dtype=np.uint8)


def tokens(folder: Path, images: ImageDataset, progress: str | None = None) -> torch.Tensor:
    """As a new run gets them."""
    source = TokenSource(load_backbone("tiny", 1), "fp32", 16, 0, TokenCache(folder, "kind", 1e9))
    return torch.cat(list(source.batches(images, range(len(images)), progress)))


def test_a_second_run_reads_no_image(tmp_path: Path, pixels: np.ndarray, reads: list[str]) -> None:
    images = in_files(tmp_path, pixels)
    first = tokens(tmp_path / "cache", images)
    assert len(reads) == 140  # to be hashed, and to be decoded
    reads.clear()
    again = tokens(tmp_path / "cache", images)
    assert not reads
    assert torch.equal(again, first)
    cache = TokenCache(tmp_path / "cache", "kind", 1e9)
    assert all(torch.equal(cache[image_key(images.read(index))], first[index]) for index in (0, 69))


def test_images_in_memory_are_not_encoded_to_be_looked_up(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ArrayDataset(
        names=[str(number) for number in range(70)], targets=np.ones((70, 1), bool), class_names=("a",), images=pixels
    )
    first = tokens(tmp_path, images)

    def refuse(*_: object) -> bytes:
        raise AssertionError("an image was encoded")

    monkeypatch.setattr(ArrayDataset, "read", refuse)
    assert torch.equal(tokens(tmp_path, images), first)
    some = images.take(np.array([5, 3]))
    assert torch.equal(tokens(tmp_path, some), first[[5, 3]])


def test_arrays_of_other_shapes_have_other_keys() -> None:
    def keys(images: np.ndarray) -> set[bytes]:
        count = len(images)
        dataset = ArrayDataset(
            names=list(map(str, range(count))), targets=np.ones((count, 1), bool), class_names=("a",), images=images
        )
        return {dataset.content(index) for index in range(count)}

    flat = np.arange(48, dtype=np.uint8)
    shapes = [(1, 4, 12), (1, 12, 4), (1, 4, 4, 3), (1, 6, 8)]
    assert len(set.union(*(keys(flat.reshape(shape)) for shape in shapes))) == len(shapes)


def test_looking_up_shows_a_bar_where_it_takes_time(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nestkala.tokens.source._PATIENCE", 0)
    images = in_files(tmp_path, pixels)
    tokens(tmp_path / "cache", images, "gallery")
    assert "gallery: looking up: 100%" in capsys.readouterr().err
    tokens(tmp_path / "cache", images)
    assert "looking up" not in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named_when_its_turn_comes(tmp_path: Path, pixels: np.ndarray) -> None:
    images = in_files(tmp_path, pixels)
    (tmp_path / "3.png").unlink()
    broken: list[int] = []
    source = TokenSource(load_backbone("tiny", 1), "fp32", 16, 0, TokenCache(tmp_path / "cache", "kind", 1e9))
    assert sum(map(len, source.batches(images, range(70), broken=broken))) == 69
    assert broken == [3]


def test_digits_are_known_again(tmp_path: Path) -> None:
    few = load_dataset("digits", tmp_path).take(np.arange(20))
    assert torch.equal(tokens(tmp_path, few), tokens(tmp_path, load_dataset("digits", tmp_path).take(np.arange(20))))
