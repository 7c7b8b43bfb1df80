"""Checkpoints to resume training from."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .case import Make, refused
from .run_folders import pickled, spoilt
from .spoiling import NO_FORMATS, Spoil, cut, flipped, replaced


def _resumed(spoil: Spoil) -> Make:
    return spoilt("checkpoint.safetensors", spoil, "train", "--epochs", "5", "--resume")


def _rewritten(change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> Spoil:
    """Other tensors or metadata, without a checksum."""

    def spoil(path: Path) -> None:
        state = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = {key: value for key, value in file.metadata().items() if key != "checksum"}
        change(state, metadata)
        save_file(state, path, metadata)

    return spoil


def _metadata(**values: str) -> Spoil:
    return _rewritten(lambda _, metadata: metadata.update(values))


def _tensor(name: str, value: Tensor) -> Spoil:
    return _rewritten(lambda state, _: state.update({name: value}))


_SPOILT: dict[str, tuple[Spoil, str]] = {
    "that is cut short": (cut(-9), "checkpoint.safetensors"),
    "with a bit flipped in its header": (flipped(40), "checkpoint.safetensors"),
    "with a bit flipped in a tensor": (flipped(-5), "checkpoint.safetensors"),
    "that is a pickle of torch": (pickled, "checkpoint.safetensors"),
    "of another version": (_metadata(version="2"), "checkpoint.safetensors"),
    "of another format": (_metadata(format="other"), "checkpoint.safetensors"),
    "after no number of epochs": (_metadata(epoch="many"), "checkpoint.safetensors"),
    "after less than no epoch": (_metadata(epoch="-1"), "checkpoint.safetensors"),
    "that does not say how far it is": (
        _rewritten(lambda _, metadata: metadata.pop("epoch")),
        "checkpoint.safetensors",
    ),
    "with a history that is none": (_metadata(history="[1]"), "checkpoint.safetensors"),
    "of another model": (_tensor("model.head.linear.bias", torch.zeros(7)), "head.linear.bias is (7,)"),
    "of a model that is not finite": (_tensor("model.head.linear.bias", torch.full((20,), torch.inf)), "not finite"),
    "of another loss": (_tensor("loss.more", torch.zeros(7)), '"more"'),
    "with momentum of a parameter too many": (_tensor("optimizer.99.momentum_buffer", torch.zeros(7)), "parameter 99"),
    "with momentum of no number": (_tensor("optimizer.x.momentum_buffer", torch.zeros(7)), "parameter x"),
    "with momentum of another shape": (_tensor("optimizer.0.momentum_buffer", torch.zeros(7)), "(7,)"),
}

CASES = [
    *(refused(f"a checkpoint {what}", _resumed(spoil), culprit) for what, (spoil, culprit) in _SPOILT.items()),
    *(
        refused(f"a checkpoint that is {what}", _resumed(replaced(content)), "checkpoint.safetensors")
        for what, content in NO_FORMATS.items()
    ),
]
