"""Features with their labels, and anchors in files."""

from pathlib import Path

import numpy as np

from .case import refused
from .damage import GARBAGE, Damage, Trap, absent, cut, replaced
from .good import OF_FEATURES, Make, command, on_copy, on_path

_FEW = "--shots 4 --queries 4 --lengths 4 --batch-size 4 --epochs 1 --workers 0 --cache-gb 0"
TRAIN = " ".join(["train --output OUT", _FEW, *(f"--{key} {value}" for key, value in OF_FEATURES.items())])
"""Training on features, without its data."""


def _trained_on(damage: Damage) -> Make:
    """Training on a copy of the good features that `damage` changes."""
    return on_copy("features", damage, f"{TRAIN} --data COPY")


def _damaged(name: str, damage: Damage) -> Make:
    return _trained_on(lambda folder: damage(folder / name))


def _saved(array: np.ndarray) -> Damage:
    return lambda path: np.save(path, array)


def _holds(name: str, array: np.ndarray) -> Make:
    return _damaged(name, _saved(array))


def _anchors(write: Damage) -> Make:
    return on_path("anchors.npy", write, f"{TRAIN} --data FEATURES --anchors PATH")


def _not_finite(value: float) -> np.ndarray:
    features = np.ones((24, 8), np.float32)
    features[3, 5] = value
    return features


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
        refused(f"{name}: {what}", _damaged(name, replaced(content)), name)
        for name in ("features.npy", "labels.npy")
        for what, content in GARBAGE.items()
    ),
    refused("features.npy: truncated", _damaged("features.npy", cut(-9)), "features.npy"),
    refused("features.npy: header claims 8 TB", _damaged("features.npy", _endless), "features.npy"),
    refused("features.npy: npz archive", _damaged("features.npy", _archive), "features.npy"),
    refused("features.npy: object array", _holds("features.npy", _OBJECTS), "features.npy"),
    refused("labels.npy: object array", _holds("labels.npy", _OBJECTS), "labels.npy"),
    refused("labels.npy: missing", _damaged("labels.npy", absent), "labels.npy"),
    refused("features.npy: integers", _holds("features.npy", np.ones((24, 8), int)), "int64 (24, 8)"),
    refused("features.npy: one-dimensional", _holds("features.npy", np.ones(24)), "float64 (24,)"),
    refused("features.npy: no rows", _holds("features.npy", np.empty((0, 8))), "float64 (0, 8)"),
    refused("features.npy: wrong width", _holds("features.npy", np.ones((24, 9))), "features:9"),
    *(
        refused(f"features.npy: {value}", _holds("features.npy", _not_finite(value)), "row 3")
        for value in (np.nan, np.inf, -np.inf)
    ),
    refused("features.npy: float32 overflow", _holds("features.npy", np.full((24, 8), 1e300)), "not finite"),
    refused("labels.npy: one label too few", _holds("labels.npy", np.arange(23) % 2), "int64 (23,)"),
    refused("labels.npy: negative label", _holds("labels.npy", np.arange(24) % 2 - 1), "-1"),
    refused("labels.npy: label of 23 billion", _holds("labels.npy", np.arange(24) * 10**9), "23000000000"),
    refused("labels.npy: largest uint64", _holds("labels.npy", np.full(24, 2**64 - 1, np.uint64)), str(2**64 - 1)),
    refused("labels.npy: floats", _holds("labels.npy", np.ones(24)), "float64 (24,)"),
    refused("labels.npy: no classes", _holds("labels.npy", np.ones((24, 0), bool)), "0 classes"),
    refused("labels.npy: multi-hot value of 2", _holds("labels.npy", np.full((24, 2), 2)), "labels.npy holds 2"),
    refused("labels.npy: no labeled images", _holds("labels.npy", np.zeros((24, 2), bool)), "0 images have a label"),
    refused(
        "classnames.txt: fewer names than classes",
        _trained_on(lambda folder: (folder / _NAMED).write_text("cat\n")),
        _NAMED,
    ),
    refused("anchors: missing file", command(f"{TRAIN} --data FEATURES --anchors lost.npy"), "lost.npy"),
    *(refused(f"anchors: {what}", _anchors(replaced(content)), "anchors.npy") for what, content in GARBAGE.items()),
    *(
        refused(f"anchors: {what}", _anchors(_saved(array)), culprit)
        for what, array, culprit in (
            ("wrong number of classes", np.eye(3), "float64 (3, 3)"),
            ("NaN", np.full((2, 8), np.nan), "anchors.npy"),
            ("float32 overflow", np.full((2, 8), 1e300), "anchors.npy"),
            ("object array", _OBJECTS, "anchors.npy"),
            ("zero width", np.ones((2, 0)), "(2, 0)"),
        )
    ),
]
