"""The fuzzing of loaders: its files are made again by their numbers, and it notices what it is there for."""

import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nestkala.utils.errors import NestKALAError
from reliability.fuzzing import harness
from reliability.fuzzing.harness import came_of, fuzz
from reliability.fuzzing.mutations import mutated
from reliability.fuzzing.targets import Target

SAFETENSORS = (16).to_bytes(8, "little") + b'{"a": [2, 3, 4]}' + bytes(range(200))


def damaged(trial: int, content: bytes = SAFETENSORS) -> bytes:
    return mutated(content, [content, b"another file"], np.random.default_rng([0, trial]))


def test_a_number_makes_its_file_again_and_no_two_make_the_same() -> None:
    files = [damaged(trial) for trial in range(200)]
    assert files == [damaged(trial) for trial in range(200)]
    assert len(set(files)) > 150
    assert max(map(len, files)) <= 2**20


def test_the_header_of_safetensors_stays_whole_where_only_a_number_changes() -> None:
    whole = [file for file in map(damaged, range(500)) if file.endswith(bytes(range(200))) and file != SAFETENSORS]
    sizes = [int.from_bytes(file[:8], "little") for file in whole]
    again = [size for size, file in zip(sizes, whole, strict=True) if 8 + size + 200 == len(file)]
    assert len(again) > 20


def test_empty_content_can_be_damaged() -> None:
    for trial in range(200):
        damaged(trial, b"")


def raise_(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [NestKALAError("a line"), FileNotFoundError(2, "no file", "x")])
def test_what_a_loader_may_raise_is_no_finding(error: Exception) -> None:
    assert came_of(lambda: raise_(error)) == ""


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), KeyError("x"), AssertionError()])
def test_any_other_error_is_a_finding(error: Exception) -> None:
    assert came_of(lambda: raise_(error)).startswith(type(error).__name__)


def came_of_in_a_process(load: str) -> str:
    """In a process of its own, since bounds on time and memory are those of the whole process."""
    code = f"""
import time, numpy
from reliability.fuzzing import harness
harness.MOST_SECONDS = 1
with harness.bounds():
    print(harness.came_of(lambda: {load}))
"""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("load", "expected"),
    [("None", ""), ("time.sleep(60)", "took more than 1 s"), ("numpy.ones(2**40, numpy.uint8)", "MemoryError at ?")],
)
def test_a_loader_that_takes_too_long_or_too_much_memory_is_a_finding(load: str, expected: str) -> None:
    assert came_of_in_a_process(load).strip() == expected


def test_a_fault_is_found_once_with_the_file_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seeds, read = tmp_path / "file", [b"a valid file", b"another"], list[bytes]()

    def load(limit: int) -> None:
        read.append(path.read_bytes())
        if len(read[-1]) > limit:
            raise KeyError("a fault")

    weak, strong = Target("weak", seeds, path, lambda: load(20)), Target("strong", seeds, path, lambda: load(2**30))
    monkeypatch.setattr(harness, "make_good", lambda _: None)
    monkeypatch.setattr(harness, "make_targets", lambda *_: [weak, strong])
    monkeypatch.setattr(harness, "time", SimpleNamespace(monotonic=count().__next__))  # a second every look
    finding, last = fuzz(1000, 0, tmp_path)
    assert finding["target"] == "weak"
    assert str(finding["what"]).startswith("KeyError")
    assert len(bytes.fromhex(str(finding["content"]))) > 20
    assert read[:4] == seeds * 2
    assert last == {"trials": {"weak": 250, "strong": 250}}
    assert len(read) == 4 + 500
    (last,) = fuzz(10, 0, tmp_path, ("strong",))
    assert last == {"trials": {"strong": 5}}
