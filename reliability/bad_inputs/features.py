"""Features with their labels, and anchors in files."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from .case import Make, refused
from .good import OF_FEATURES, Good, copied
from .spoiling import NO_FORMATS, Spoil, Trap, absent, cut, replaced

_FLAGS = [word for key, value in OF_FEATURES.items() for word in (f"--{key}", value)]
_FLAGS += [
    "--shots",
    "4",
    "--queries",
    "4",
    "--lengths",
    "4",
    "--batch-size",
    "4",
    "--epochs",
    "1",
    "--workers",
    "0",
    "--cache-gb",
    "0",
]


def trained_on(spoil: Callable[[Path], object], *flags: str | Path) -> Make:
    """Training on a copy of the good features that `spoil` changes."""

    def make(here: Path, good: Good) -> list[str | Path]:
        folder = copied(good.features, here)
        spoil(folder)
        return ["train", "--data", folder, "--output", here / "out", *_FLAGS, *flags]

    return make


def _spoilt(name: str, spoil: Spoil) -> Make:
    return trained_on(lambda folder: spoil(folder / name))


def _holds(name: str, array: np.ndarray) -> Make:
    return trained_on(lambda folder: np.save(folder / name, array))


def _anchors(write: Callable[[Path], object]) -> Make:
    def make(here: Path, good: Good) -> Sequence[str | Path]:
        write(here / "anchors.npy")
        return trained_on(lambda _: None, "--anchors", here / "anchors.npy")(here, good)

    return make


def _not_finite(value: float) -> np.ndarray:
    features = np.ones((24, 8), np.float32)
    features[3, 5] = value
    return features


def _npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.eye(2))


def _endless(path: Path) -> None:
    """A header that promises 8 TB."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2 * 10**9, 1000)})


_OBJECTS = np.array([Trap(), Trap()], dtype=object)
_NAMED = "classnames.txt"

CASES = [
    *(
        refused(f"{name} that is {what}", _spoilt(name, replaced(content)), name)
        for name in ("features.npy", "labels.npy")
        for what, content in NO_FORMATS.items()
    ),
    refused("features that are cut short", _spoilt("features.npy", cut(-9)), "features.npy"),
    refused("features of which the header promises 8 TB", _spoilt("features.npy", _endless), "features.npy"),
    refused("an archive for features", _spoilt("features.npy", _archive), "features.npy"),
    refused("features that would be unpickled", _holds("features.npy", _OBJECTS), "features.npy"),
    refused("labels that would be unpickled", _holds("labels.npy", _OBJECTS), "labels.npy"),
    refused("features without labels", _spoilt("labels.npy", absent), "labels.npy"),
    refused("whole numbers for features", _holds("features.npy", np.ones((24, 8), int)), "int64 (24, 8)"),
    refused("features in one row", _holds("features.npy", np.ones(24)), "float64 (24,)"),
    refused("no features", _holds("features.npy", np.empty((0, 8))), "float64 (0, 8)"),
    refused("features of another width", _holds("features.npy", np.ones((24, 9))), "features:9"),
    *(
        refused(f"a feature that is {value}", _holds("features.npy", _not_finite(value)), "row 3")
        for value in (np.nan, np.inf, -np.inf)
    ),
    refused("features too large for float32", _holds("features.npy", np.full((24, 8), 1e300)), "not finite"),
    refused("a label too few", _holds("labels.npy", np.arange(23) % 2), "int64 (23,)"),
    refused("a label below 0", _holds("labels.npy", np.arange(24) % 2 - 1), "-1"),
    refused("a label of a billion", _holds("labels.npy", np.arange(24) * 10**9), "23000000000"),
    refused("the largest label there is", _holds("labels.npy", np.full(24, 2**64 - 1, np.uint64)), str(2**64 - 1)),
    refused("labels of half a class", _holds("labels.npy", np.ones(24)), "float64 (24,)"),
    refused("labels of no class", _holds("labels.npy", np.ones((24, 0), bool)), "0 classes"),
    refused("two labels of 2", _holds("labels.npy", np.full((24, 2), 2)), "labels.npy holds 2"),
    refused("nothing labeled", _holds("labels.npy", np.zeros((24, 2), bool)), "0 images have a label"),
    refused("fewer names than classes", trained_on(lambda folder: (folder / _NAMED).write_text("cat\n")), _NAMED),
    refused("anchors that are not there", trained_on(lambda _: None, "--anchors", "lost.npy"), "lost.npy"),
    *(
        refused(f"anchors that are {what}", _anchors(replaced(content)), "anchors.npy")
        for what, content in NO_FORMATS.items()
    ),
    *(
        refused(f"anchors {what}", _anchors(replaced(_npy(array))), culprit)
        for what, array, culprit in (
            ("of another number of classes", np.eye(3), "float64 (3, 3)"),
            ("that are not finite", np.full((2, 8), np.nan), "anchors.npy"),
            ("too large for float32", np.full((2, 8), 1e300), "anchors.npy"),
            ("that would be unpickled", _OBJECTS, "anchors.npy"),
            ("without width", np.ones((2, 0)), "(2, 0)"),
        )
    ),
]
