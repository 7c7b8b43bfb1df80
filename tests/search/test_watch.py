"""`nestkala index --watch` as a process of its own, while files come and go."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nestkala import Hasher
from nestkala.cli import main
from nestkala.index import PrefixIndex
from nestkala.search.following.watch import Watch
from nestkala.search.places import ImageFolders

_PATIENCE = 120.0


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((40, 40)).save(path)


class Watching:
    """A process that watches, and what it says."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nestkala", "index", *map(str, args), "--watch", "--watch-every", "0.1", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out, self.err = Queue[str](), Queue[str]()
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=lambda stream=stream, lines=lines: [*map(lines.put, stream)], daemon=True).start()

    def told(self) -> dict[str, Any]:
        """The next change that it tells."""
        answer: dict[str, Any] = json.loads(self.out.get(timeout=_PATIENCE))
        return answer

    def told_until(self, done: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        answers = [self.told()]
        while not done(answers[-1]):
            answers.append(self.told())
        return answers

    def warned(self) -> str:
        return self.err.get(timeout=_PATIENCE).strip()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(8):
        draw(tmp_path / "photos" / "day" / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def watching(photos: Path, noise_model: Path) -> Iterator[Watching]:
    started = Watching(photos, "--model", noise_model)
    try:
        assert started.told()["images"] == 8
        assert started.warned() == f"watching {photos} (press Ctrl-C to stop)"
        yield started
    finally:
        started.process.kill()
        started.process.wait()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_follows_what_happens_and_ends_when_told(watching: Watching, photos: Path, how: signal.Signals) -> None:
    index = photos.with_name("photos.index")
    draw(photos / "new" / "a.png", 50)
    assert watching.told()["added"] == ["new/a.png"]
    assert "new/a.png" in set(PrefixIndex.load(index).ids)

    (photos / "broken.png").write_bytes(b"half a file")
    assert watching.told()["broken"] == ["broken.png"]
    (photos / "day" / "0.png").unlink()
    assert watching.told()["removed"] == ["day/0.png"]  # and nothing of the broken file again

    photos.rename(photos.with_name("unmounted"))
    assert watching.warned().startswith(f"waiting: the image folder {photos}")
    photos.with_name("unmounted").rename(photos)
    assert watching.warned() == "watching again"

    draw(photos / "broken.png", 51)
    assert watching.told()["added"] == ["broken.png"]
    watching.process.send_signal(how)
    assert watching.process.wait(_PATIENCE) == 0
    assert watching.warned() == f"stopped watching; {index} is saved"
    with pytest.raises(Empty):
        watching.out.get(timeout=1)
    found = PrefixIndex.load(index)
    assert sorted(found.ids) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert not list(photos.parent.glob(".writing-*"))


def test_an_emptied_folder_is_said_once_and_waited_for(watching: Watching, photos: Path) -> None:
    (photos / "day").rename(photos.with_name("away"))
    (photos / "day").mkdir()
    assert "8 of 8 indexed images are no longer in" in watching.warned()
    time.sleep(1)
    assert watching.err.empty()
    (photos / "day").rmdir()
    photos.with_name("away").rename(photos / "day")
    assert watching.warned() == "watching again"
    assert len(PrefixIndex.load(photos.with_name("photos.index"))) == 8


def test_what_is_being_written_is_left_to_the_next_look(photos: Path, noise_model: Path) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    index = photos.with_name("photos.index")
    assert main(["index", str(photos), "--model", str(noise_model)]) == 0
    watch = Watch(str(index), ImageFolders.of(photos), hasher)
    assert watch.look() is None
    draw(photos / "new.png", 50)
    os.utime(photos / "new.png")
    assert watch.look() is None
    long_ago = time.time_ns() - 10**10
    os.utime(photos / "new.png", ns=(long_ago, long_ago))
    found = watch.look()
    assert found is not None
    assert found[1].added == ["new.png"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_fingerprint": "0" * 32}, "is of another model now"),
        ({"exclude": '["*.jpg"]'}, "leaves out other files now"),
        ({"folders": '{"photos": {"folder": "photos"}}'}, "calls its folders differently now"),
    ],
)
def test_an_index_that_another_process_made_different_is_left_as_it_is(
    photos: Path, noise_model: Path, changed: dict[str, str], said: str
) -> None:
    path = photos.with_name("photos.index")
    assert main(["index", str(photos), "--model", str(noise_model)]) == 0
    watch = Watch(str(path), ImageFolders.of(photos), Hasher.from_pretrained(noise_model, "cpu"))
    assert watch.look() is None
    index = PrefixIndex.load(path)
    index.about |= changed
    index.save(path)
    before = path.read_bytes()
    draw(photos / "new.png", 50)
    os.utime(photos / "new.png", ns=(1, 1))
    warned: list[str] = []

    def warn(line: str) -> None:
        warned.append(line)
        if len(warned) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch.run(1e-3, tell=lambda _, __: pytest.fail("the index was changed"), warn=warn)
    assert "another process has changed" in warned[0]
    assert said in warned[1]
    assert path.read_bytes() == before


def test_a_disk_that_is_full_is_waited_for(photos: Path, noise_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    index = photos.with_name("photos.index")
    assert main(["index", str(photos), "--model", str(noise_model)]) == 0
    draw(photos / "new.png", 50)
    os.utime(photos / "new.png", ns=(1, 1))
    said: list[str] = []
    sleeps = 0

    def save(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def sleep(_: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps == 3:
            monkeypatch.undo()
            monkeypatch.setattr(time, "sleep", sleep)
        if sleeps == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("nestkala.search.following.watch.save_index", save)
    monkeypatch.setattr(time, "sleep", sleep)
    added: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        Watch(str(index), ImageFolders.of(photos), hasher).run(
            1, lambda _, changes: added.extend(changes.added), said.append
        )
    assert said == ["waiting: [Errno 28] No space left on device", "watching again"]
    assert added == ["new.png"]
    assert "new.png" in set(PrefixIndex.load(index).ids)
