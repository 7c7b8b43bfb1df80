"""Checkpoints to resume training from."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .case import refused
from .damage import GARBAGE, Damage, cut, flipped, replaced
from .good import Make
from .run_folders import damaged, pickled


def _resumed(damage: Damage) -> Make:
    return damaged("checkpoint.safetensors", damage, "train --epochs 5 --resume COPY")


def _rewritten(change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> Damage:
    """Other tensors or metadata, without a checksum."""

    def damage(path: Path) -> None:
        state = load_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = {key: value for key, value in file.metadata().items() if key != "checksum"}
        change(state, metadata)
        save_file(state, path, metadata)

    return damage


def _metadata(**values: str) -> Damage:
    return _rewritten(lambda _, metadata: metadata.update(values))


def _tensor(name: str, value: Tensor) -> Damage:
    return _rewritten(lambda state, _: state.update({name: value}))


_DAMAGED: dict[str, tuple[Damage, str]] = {
    "truncated": (cut(-9), "checkpoint.safetensors"),
    "bit flip in header": (flipped(40), "checkpoint.safetensors"),
    "bit flip in tensor": (flipped(-5), "checkpoint.safetensors"),
    "torch pickle": (pickled, "checkpoint.safetensors"),
    "unknown version": (_metadata(version="2"), "checkpoint.safetensors"),
    "unknown format": (_metadata(format="other"), "checkpoint.safetensors"),
    "non-numeric epoch": (_metadata(epoch="many"), "checkpoint.safetensors"),
    "negative epoch": (_metadata(epoch="-1"), "checkpoint.safetensors"),
    "missing epoch": (
        _rewritten(lambda _, metadata: metadata.pop("epoch")),
        "checkpoint.safetensors",
    ),
    "malformed history": (_metadata(history="[1]"), "checkpoint.safetensors"),
    "weights of wrong shape": (_tensor("model.head.linear.bias", torch.zeros(7)), "head.linear.bias is (7,)"),
    "infinite weights": (_tensor("model.head.linear.bias", torch.full((20,), torch.inf)), "not finite"),
    "unknown loss tensor": (_tensor("loss.more", torch.zeros(7)), '"more"'),
    "momentum of unknown parameter": (_tensor("optimizer.99.momentum_buffer", torch.zeros(7)), "parameter 99"),
    "momentum of non-numeric parameter": (_tensor("optimizer.x.momentum_buffer", torch.zeros(7)), "parameter x"),
    "momentum of wrong shape": (_tensor("optimizer.0.momentum_buffer", torch.zeros(7)), "(7,)"),
}

CASES = [
    *(refused(f"checkpoint: {what}", _resumed(damage), culprit) for what, (damage, culprit) in _DAMAGED.items()),
    *(
        refused(f"checkpoint: {what}", _resumed(replaced(content)), "checkpoint.safetensors")
        for what, content in GARBAGE.items()
    ),
]
