"""Processes that search an index file while another changes it."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestkala.codes import hamming
from nestkala.index import PrefixIndex

from .finding import Finding
from .workers import Call, done

READERS = 2
_HELD, _STEP, _K = 400, 7, 10
"""Number of items in the index, number of new ones in each state, and number of searches."""


def run(folder: Path, seconds: float = 60.0) -> list[Finding]:
    """Let processes load and search an index for this long while one writer changes it.

    In its n-th state the index contains known items and one that encodes n, so a reader knows what it must find.

    Raises:
        RuntimeError: if a process fails, or sees anything but one of the states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "changing.index"
    state(0).save(path)
    readers = [Call(read, (path, seconds, folder / f"reader-{n}", n)) for n in range(READERS)]
    done([Call(write, (path, seconds)), *readers], folder / "log")
    counts = [tuple(map(int, (folder / f"reader-{n}").read_text().split())) for n in range(READERS)]
    loads, states = sum(loads for loads, _ in counts), min(states for _, states in counts)
    return [
        Finding(
            f"{READERS} processes search an index that another changes",
            f"loaded {loads:,} times in {seconds:.0f} s, {states:,} states or more each; all results as by brute force",
            "no error, and results of one state only",
            states > 1,
            {"loads": loads, "states": states, "writer's states": number_of(PrefixIndex.load(path))},
        )
    ]


def codes_of(numbers: range) -> NDArray[np.uint8]:
    """24-bit codes of the items with these numbers, close to each other, (n, 3)."""
    return np.array([np.random.default_rng(n).integers(0, 4, 3) for n in numbers], np.uint8).reshape(-1, 3)


def held(number: int) -> range:
    """The items of the n-th state."""
    return range(_STEP * number, _STEP * number + _HELD)


def state(number: int) -> PrefixIndex:
    """The n-th state, built in one step."""
    items = held(number)
    index = PrefixIndex.build(codes_of(items), map(str, items))
    index.add(np.full((1, 3), 255, np.uint8), ["state"], [{"number": number}])
    return index


def number_of(index: PrefixIndex) -> int:
    """The number of the state an index is in."""
    return int(dict(index.items())["state"]["number"])


def write(path: Path, seconds: float) -> None:
    """Take the index from state to state."""
    index, number, until = PrefixIndex.load(path), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        index.remove([*map(str, held(number)[:_STEP]), "state"])
        number += 1
        new = held(number)[-_STEP:]
        index.add(codes_of(new), map(str, new))
        index.add(np.full((1, 3), 255, np.uint8), ["state"], [{"number": number}])
        index.save(path)


def read(path: Path, seconds: float, report: Path, seed: int) -> None:
    """Load and search, compare with brute force, and record how often and in how many states.

    Raises:
        AssertionError: if the results do not match the state.
    """
    rng, until, states, loads = np.random.default_rng(seed), time.monotonic() + seconds, set(), 0
    while time.monotonic() < until:
        index = PrefixIndex.load(path)
        number, loads = number_of(index), loads + 1
        states.add(number)
        codes, names = codes_of(held(number)), [str(item) for item in held(number)]
        query = rng.integers(0, 4, (1, 3), dtype=np.uint8)
        distances = hamming(query, codes, 24)[0].tolist()
        expected = sorted(zip(distances, map(bytes, codes), held(number), names, strict=True))[:_K]
        assert set(index.ids) == {*names, "state"}, number
        for _ in range(3):  # even if the file has been changed since
            assert index.search(query, _K).ids[0] == [name for *_, name in expected], number
    report.write_text(f"{loads} {len(states)}")
