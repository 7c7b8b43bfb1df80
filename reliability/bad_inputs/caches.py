"""The token cache: damage to it is never an error, and never changes a result."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from nestkala.cli import main
from nestkala.search.shards import read_shards

from .case import Case, accepted
from .damage import PICKLE, Damage, cut, replaced
from .good import Good, Make, quietly


def _trained(here: Path, good: Good, output: str) -> list[str | Path]:
    few = ("--shots", "2", "--queries", "2", "--lengths", "4", "--epochs", "0", "--workers", "0")
    return ["train", "--data", good.images, "--output", here / output, "--cache", here / "out-cache", *few]


def _damaged(damage: Damage, which: str = "*/*.safetensors") -> Make:
    """Training with a cache whose segments, or other files, are damaged, after the same with good ones."""

    def make(here: Path, good: Good) -> list[str | Path]:
        quietly(lambda: main([str(word) for word in _trained(here, good, "first")]))
        there = list((here / "out-cache").glob(which))
        assert there
        for path in there:
            damage(path)
        return _trained(here, good, "out")

    return make


def _same_scores(here: Path, _: Good, __: str) -> bool:
    first, second = (json.loads((here / name / "metrics.json").read_text())["lengths"] for name in ("first", "out"))
    return first == second


def _other_keys(path: Path) -> None:
    held = load_file(path)
    save_file(held | {"keys": held["keys"] ^ 1}, path)


def _fewer_tokens(path: Path) -> None:
    held = load_file(path)
    save_file(held | {"tokens": held["tokens"][:1].clone()}, path)


def _exported(damage: Damage) -> Make:
    """Encoding by ONNX Runtime with a cached network that is damaged, after the same with a good one."""

    def make(here: Path, good: Good) -> list[str | Path]:
        def encoded(output: str) -> list[str | Path]:
            return ["encode", good.images, here / output, "--model", good.run, "--backend", "onnx", "--workers", "0"]

        quietly(lambda: main([str(word) for word in encoded("first")]))
        kept = list(Path(os.environ["NESTKALA_CACHE"], "exports").glob("*.safetensors"))
        assert kept
        for path in kept:
            damage(path)
        return encoded("out")

    return make


def _same_codes(here: Path, _: Good, __: str) -> bool:
    first, second = (next(read_shards(here / name)) for name in ("first", "out"))
    return list(first.ids) == list(second.ids) and np.array_equal(first.codes, second.codes)


def _left_alone(here: Path, _: Good) -> list[str | Path]:
    (here / "folder" / ("0" * 32)).mkdir(parents=True)
    (here / "folder" / ("0" * 32) / "letter.txt").write_text("mine")
    (here / "folder" / "photo.safetensors").write_text("mine")
    return ["cache", "clear", "--folder", here / "folder", "--json"]


_FILES: dict[str, Damage] = {"truncated": cut(-9), "pickle": replaced(PICKLE)}
_SEGMENTS: dict[str, Damage] = _FILES | {"wrong keys": _other_keys, "fewer tokens than keys": _fewer_tokens}
_NETWORKS: dict[str, Damage] = _FILES | {"empty": cut(0)}

CASES: list[Case] = [
    *(accepted(f"token cache: {what}", _damaged(damage), _same_scores, True) for what, damage in _SEGMENTS.items()),
    *(
        accepted(f"digest cache: {what}", _damaged(damage, "digests.safetensors"), _same_scores, True)
        for what, damage in _FILES.items()
    ),
    *(
        accepted(f"network cache: {what}", _exported(damage), _same_codes, True)
        for what, damage in _NETWORKS.items()
        if find_spec("onnxruntime") and find_spec("onnxscript")
    ),
    accepted("cache clear: foreign files", _left_alone, lambda _, __, said: json.loads(said)["segments"] == 0),
]
