"""Folders written by training: models, their settings, splits and scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nestkala.utils.files import sha256

from .case import Case, refused
from .damage import DEEP, GARBAGE, LARGE_NUMBER, Damage, Trap, absent, cut, edited, flipped, replaced
from .good import Make, on_copy


def damaged(name: str, damage: Damage, command: str = "eval COPY") -> Make:
    """A command on a copy of the run on features with one damaged file."""
    return on_copy("feature_run", lambda run: damage(run / name), command)


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Other tensors in a safetensors file, without its checksum; a checksum next to a model's is updated."""

    def damage(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)
        if path.name == "model.safetensors":
            edited(weights_sha256=sha256(path))(path.with_name("model.json"))

    return damage


def pickled(path: Path) -> None:
    """A file as torch writes it, which runs a command when unpickled."""
    torch.save({"anchors": Trap()}, path)


def _put(name: str, value: Tensor) -> Damage:
    return tensors(lambda state: state.update({name: value}))


def _listed(part: str, names: Callable[[dict[str, Any]], list[Any]]) -> Damage:
    return lambda path: edited(**{part: names(json.loads(path.read_text()))})(path)


_JSON = {
    "10,000 brackets": DEEP,
    "5,000-digit number": LARGE_NUMBER,
    "list instead of object": "[1]",
    "truncated": '{"a": ',
}
_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown version": ({"version": 9}, "has version 9"),
    "unknown format": ({"format": "other"}, "format"),
    "unknown key": ({"color": "red"}, "color"),
    "no lengths": ({"lengths": []}, "lengths"),
    "a billion bits": ({"lengths": [10**9]}, "lengths"),
    "rank of a billion": ({"rank": 10**9}, "rank"),
    "prompt length of a billion": ({"prompt_length": 10**9}, "prompt_length"),
    "negative number of blocks": ({"adapt_blocks": -1}, "adapt_blocks"),
    "more blocks than the backbone has": ({"adapter": "lora", "adapt_blocks": 10**9}, "adapt"),
    "NaN adapter scale": ({"adapter_scale": float("nan")}, "adapter_scale"),
    "more classes than anchors": ({"class_names": ["a", "b", "c"]}, "class_names: 3 names for 2 classes"),
    "different lengths": ({"lengths": [4, 24]}, "expected (24,)"),
    "unknown head": ({"head": "flt"}, "did you mean 'flat'"),
    "different backbone": ({"backbone": "tiny"}, "fingerprint"),
    "unknown backbone": ({"backbone": "features:many"}, "features:many"),
    "backbone of a trillion features": ({"backbone": f"features:{10**12}"}, "features"),
    "5,000-digit version": ({"version": LARGE_NUMBER}, "has version 999"),
    "checksum of other weights": ({"weights_sha256": "0" * 64}, "model.safetensors belong to different models"),
    "missing checksum": ({"weights_sha256": None}, "weights_sha256"),
    "malformed checksum": ({"weights_sha256": "0"}, "weights_sha256"),
    "different backbone weights": ({"fingerprint": "0" * 32}, "0" * 32),
}

_STATES: dict[str, tuple[Damage, str]] = {
    "missing": (absent, "model.safetensors"),
    "truncated": (cut(-9), "model.safetensors"),
    **{what: (replaced(content), "model.safetensors") for what, content in GARBAGE.items()},
    "bit flip in header": (flipped(40), "model.safetensors"),
    "bit flip in tensor": (flipped(-5), "model.safetensors"),
    "torch pickle": (pickled, "model.safetensors"),
    "missing tensor": (tensors(lambda state: state.pop("head.linear.bias")), "head.linear.bias is absent"),
    "extra tensor": (_put("more", torch.zeros(2)), "more"),
    "wrong shape": (_put("head.linear.bias", torch.zeros(7)), "head.linear.bias is (7,)"),
    "integer tensor": (_put("head.linear.bias", torch.zeros(20, dtype=torch.int64)), "head.linear.bias"),
    "NaN weights": (_put("head.linear.bias", torch.full((20,), torch.nan)), "head.linear.bias"),
    "one-dimensional anchors": (_put("anchors", torch.zeros(16)), "anchors are (16,)"),
    "anchors a billion wide": (_put("anchors", torch.zeros(0, 10**9)), "anchors are (0, 1000000000)"),
    "zero-width anchors": (_put("anchors", torch.zeros(2, 0)), "anchors are (2, 0)"),
}
_SPLITS: dict[str, tuple[Damage, str]] = {
    "unknown version": (edited(version=9), "version 9"),
    "unknown format": (edited(format="other"), "split.json"),
    "no queries": (edited(query=[]), "queries"),
    "numbers instead of names": (edited(query=[1, 2]), "query"),
    "unknown image": (edited(query=["row 99"]), "'row 99'"),
    "duplicate image": (edited(gallery=["row 1", "row 1"]), "'row 1'"),
    "queries in gallery": (_listed("gallery", lambda split: split["query"]), "gallery of split"),
    "queries in training set": (_listed("train", lambda split: split["query"]), "train part of split"),
}
_CONFIGS: dict[str, tuple[Damage, str]] = {
    "missing": (absent, "config.yaml"),
    "unknown key": (lambda path: path.write_text(path.read_text() + "epoch: 1\n"), "did you mean 'epochs'"),
    "duplicate key": (lambda path: path.write_text(path.read_text() + "epochs: 1\n"), "'epochs' is set twice"),
    "deleted data": (lambda path: path.write_text(path.read_text().replace("/features", "/gone")), "/gone"),
}


def _each(name: str, damages: dict[str, tuple[Damage, str]]) -> list[Case]:
    return [refused(f"{name}: {what}", damaged(name, damage), culprit) for what, (damage, culprit) in damages.items()]


CASES = [
    *(
        refused(f"{name}: {what}", damaged(name, replaced(content)), name)
        for name in ("model.json", "split.json", "metrics.json")
        for what, content in _JSON.items()
    ),
    refused("history.json: truncated", damaged("history.json", replaced("{"), "report COPY"), "history.json"),
    *_each("metrics.json", {"non-numeric score": (edited(lengths={"4": {"map": "high"}}), "metrics.json")}),
    *_each("model.json", {"missing": (absent, "model.json")}),
    *_each("model.json", {what: (edited(**values), culprit) for what, (values, culprit) in _SPECS.items()}),
    *_each("model.safetensors", _STATES),
    *_each("split.json", _SPLITS),
    *_each("config.yaml", _CONFIGS),
]
