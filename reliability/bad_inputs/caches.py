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
from .good import Good, Make, placed, quietly


def _again(files: str, damage: Damage, command: str) -> Make:
    """A command whose output is OUT, after the same with another output; in between, files of its cache are damaged."""

    def make(here: Path, good: Good) -> list[str | Path]:
        cache = here / "out-cache" if "CACHE" in command else Path(os.environ["NESTKALA_CACHE"])
        first = placed(command, here, good, CACHE=cache, OUT=here / "first")
        quietly(lambda: main(list(map(str, first))))
        found = list(cache.glob(files))
        assert found
        for path in found:
            damage(path)
        return placed(command, here, good, CACHE=cache)

    return make


def _trained(damage: Damage, files: str = "*/*.safetensors") -> Make:
    train = "train --data IMAGES --shots 2 --queries 2 --lengths 4 --epochs 0 --workers 0"
    return _again(files, damage, f"{train} --cache CACHE --output OUT")


def _exported(damage: Damage) -> Make:
    encode = "encode IMAGES OUT --model RUN --backend onnx --workers 0"
    return _again("exports/*.safetensors", damage, encode)


def _same_scores(here: Path, _: Good, __: str) -> bool:
    first, second = (json.loads((here / name / "metrics.json").read_text())["lengths"] for name in ("first", "out"))
    return first == second


def _other_keys(path: Path) -> None:
    held = load_file(path)
    save_file(held | {"keys": held["keys"] ^ 1}, path)


def _fewer_tokens(path: Path) -> None:
    held = load_file(path)
    save_file(held | {"tokens": held["tokens"][:1].clone()}, path)


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
    *(accepted(f"token cache: {what}", _trained(damage), _same_scores, True) for what, damage in _SEGMENTS.items()),
    *(
        accepted(f"digest cache: {what}", _trained(damage, "digests.safetensors"), _same_scores, True)
        for what, damage in _FILES.items()
    ),
    *(
        accepted(f"network cache: {what}", _exported(damage), _same_codes, True)
        for what, damage in _NETWORKS.items()
        if find_spec("onnxruntime") and find_spec("onnxscript")
    ),
    accepted("cache clear: foreign files", _left_alone, lambda _, __, said: json.loads(said)["segments"] == 0),
]
