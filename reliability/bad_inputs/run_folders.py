"""Folders written by training: models, their settings, splits and scores."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nestkala.utils.files import sha256

from .case import Case, Make, refused
from .good import Good, copied
from .spoiling import DEEP, LARGE_NUMBER, NO_FORMATS, Spoil, Trap, absent, cut, edited, flipped, replaced


def spoilt(name: str, spoil: Spoil, *command: str) -> Make:
    """A copy of the run on features with one damaged file; the command is `eval` unless another is given."""

    def make(here: Path, good: Good) -> list[str | Path]:
        run = copied(good.feature_run, here)
        spoil(run / name)
        return [*(command or ("eval",)), run]

    return make


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Spoil:
    """Other tensors in a safetensors file, without its checksum; a checksum next to a model's is updated."""

    def spoil(path: Path) -> None:
        state = load_file(path)
        change(state)
        save_file(state, path)
        if path.name == "model.safetensors":
            edited(weights_sha256=sha256(path))(path.with_name("model.json"))

    return spoil


def pickled(path: Path) -> None:
    """A file as torch writes it, which runs a command when unpickled."""
    torch.save({"anchors": Trap()}, path)


def _put(name: str, value: Tensor) -> Spoil:
    return tensors(lambda state: state.update({name: value}))


def _listed(part: str, names: Callable[[dict[str, Any]], list[Any]]) -> Spoil:
    return lambda path: edited(**{part: names(json.loads(path.read_text()))})(path)


_JSON = {
    "10,000 brackets": DEEP,
    "a number of 5,000 digits": LARGE_NUMBER,
    "a list": "[1]",
    "cut short": '{"a": ',
}
_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "of another version": ({"version": 9}, "has version 9, expected 4"),
    "of another format": ({"format": "other"}, "format"),
    "with a word too many": ({"color": "red"}, "color"),
    "of no lengths": ({"lengths": []}, "lengths"),
    "of a billion bits": ({"lengths": [10**9]}, "lengths"),
    "of a billion directions": ({"rank": 10**9}, "rank"),
    "of a billion learned tokens": ({"prompt_length": 10**9}, "prompt_length"),
    "of a negative number of blocks": ({"adapt_blocks": -1}, "adapt_blocks"),
    "of blocks that there are not": ({"adapter": "lora", "adapt_blocks": 10**9}, "adapt"),
    "of a strength that is no number": ({"adapter_scale": float("nan")}, "adapter_scale"),
    "of more classes than anchors": ({"class_names": ["a", "b", "c"]}, "class_names: 3 names for 2 classes"),
    "of other lengths": ({"lengths": [4, 24]}, "expected (24,)"),
    "of another head": ({"head": "flt"}, "did you mean 'flat'"),
    "of another backbone": ({"backbone": "tiny"}, "fingerprint"),
    "of no such backbone": ({"backbone": "features:many"}, "features:many"),
    "of a backbone of a trillion numbers": ({"backbone": f"features:{10**12}"}, "features"),
    "of a version of 5,000 digits": ({"version": LARGE_NUMBER}, "has version 999"),
    "of other weights": ({"weights_sha256": "0" * 64}, "model.safetensors belong to different models"),
    "of weights without a checksum": ({"weights_sha256": None}, "weights_sha256"),
    "of a checksum that is none": ({"weights_sha256": "0"}, "weights_sha256"),
    "of other weights of the backbone": ({"fingerprint": "0" * 32}, "0" * 32),
}


def _spec(values: dict[str, Any]) -> Make:
    return spoilt("model.json", edited(**values))


_STATES: dict[str, tuple[Spoil, str]] = {
    "a cut": (cut(-9), "model.safetensors"),
    **{f"{what} in its place": (replaced(content), "model.safetensors") for what, content in NO_FORMATS.items()},
    "a bit flipped in its header": (flipped(40), "model.safetensors"),
    "a bit flipped in a tensor": (flipped(-5), "model.safetensors"),
    "a pickle of torch in its place": (pickled, "model.safetensors"),
    "a tensor that is absent": (tensors(lambda state: state.pop("head.linear.bias")), "head.linear.bias is absent"),
    "a tensor too many": (_put("more", torch.zeros(2)), "more"),
    "a tensor of another shape": (_put("head.linear.bias", torch.zeros(7)), "head.linear.bias is (7,)"),
    "a tensor of whole numbers": (_put("head.linear.bias", torch.zeros(20, dtype=torch.int64)), "head.linear.bias"),
    "a value that is no number": (_put("head.linear.bias", torch.full((20,), torch.nan)), "head.linear.bias"),
    "anchors in one row": (_put("anchors", torch.zeros(16)), "anchors are (16,)"),
    "anchors a billion wide": (_put("anchors", torch.zeros(0, 10**9)), "anchors are (0, 1000000000)"),
    "anchors without width": (_put("anchors", torch.zeros(2, 0)), "anchors are (2, 0)"),
}
_SPLITS: dict[str, tuple[Spoil, str]] = {
    "of another version": (edited(version=9), "version 9"),
    "of another format": (edited(format="other"), "split.json"),
    "without queries": (edited(query=[]), "queries"),
    "of numbers": (edited(query=[1, 2]), "query"),
    "of images that the data lacks": (edited(query=["row 99"]), "'row 99'"),
    "of an image twice": (edited(gallery=["row 1", "row 1"]), "'row 1'"),
    "of queries that are in the gallery": (_listed("gallery", lambda split: split["query"]), "gallery of split"),
    "of queries that are trained on": (_listed("train", lambda split: split["query"]), "train part of split"),
}
_CONFIGS: dict[str, tuple[Spoil, str]] = {
    "absent": (absent, "config.yaml"),
    "with a word too many": (lambda path: path.write_text(path.read_text() + "epoch: 1\n"), "did you mean 'epochs'"),
    "with a key twice": (lambda path: path.write_text(path.read_text() + "epochs: 1\n"), "'epochs' is set twice"),
    "of data that is gone": (lambda path: path.write_text(path.read_text().replace("/features", "/gone")), "/gone"),
}


def _whole(name: str) -> list[Case]:
    """Content that is not JSON, or has another form, instead of a file."""
    return [refused(f"{name} that is {what}", spoilt(name, replaced(content)), name) for what, content in _JSON.items()]


def _each(what: str, name: str, spoilt_by: dict[str, tuple[Spoil, str]]) -> list[Case]:
    return [refused(f"{what} {how}", spoilt(name, spoil), culprit) for how, (spoil, culprit) in spoilt_by.items()]


CASES = [
    *_whole("model.json"),
    *_whole("split.json"),
    *_whole("metrics.json"),
    refused("a history that is no JSON", spoilt("history.json", replaced("{"), "report"), "history.json"),
    refused("scores without numbers", spoilt("metrics.json", edited(lengths={"4": {"map": "high"}})), "metrics.json"),
    refused("no model.json", spoilt("model.json", absent), "model.json"),
    refused("no model.safetensors", spoilt("model.safetensors", absent), "model.safetensors"),
    *(
        refused(
            f"model.safetensors that is {what}", spoilt("model.safetensors", replaced(content)), "model.safetensors"
        )
        for what, content in NO_FORMATS.items()
    ),
    *(refused(f"a model {what}", _spec(values), culprit) for what, (values, culprit) in _SPECS.items()),
    *_each("a model with", "model.safetensors", _STATES),
    *(refused(f"a split {what}", spoilt("split.json", spoil), culprit) for what, (spoil, culprit) in _SPLITS.items()),
    *(
        refused(f"settings of a run {what}", spoilt("config.yaml", spoil), culprit)
        for what, (spoil, culprit) in _CONFIGS.items()
    ),
]
