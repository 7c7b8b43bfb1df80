"""The state of an unfinished training run in one safetensors file, replaced atomically."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from ..utils.errors import DivergedError, NestKALAError, one_line
from ..utils.files import load_tensors, save_tensors
from ..utils.versions import check_version
from .history import Epoch, history_as_json, history_from_json

_FORMAT, _VERSION = "nestkala-checkpoint", 3


class Trained(Protocol):
    """A model that knows which of its tensors are trained, as `HashModel` does."""

    def trained_state(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint must contain."""

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load what `trained_state` returned."""


def save_checkpoint(
    path: Path,
    model: Trained,
    loss: nn.Module,
    optimizer: Optimizer,
    epoch: int,
    seconds: float,
    history: Sequence[Epoch] = (),
    scaler: GradScaler | None = None,
) -> None:
    """Write the trained weights, the loss's buffers, the optimizer's state, and the number of epochs and seconds.

    `history` adds the records of the epochs, `scaler` the state of fp16 gradient scaling.

    Raises:
        DivergedError: if a value is not finite; the previous checkpoint is kept.
    """
    tensors = {f"model.{name}": value for name, value in model.trained_state().items()}
    tensors |= {f"loss.{name}": value for name, value in loss.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(v) for key, v in state.items() if v is not None}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise DivergedError(f"after epoch {epoch}, {name} is not finite; the last good checkpoint stays in {path}")
    progress = {"epoch": str(epoch), "seconds": repr(seconds), "history": history_as_json(history)}
    if scaler is not None:
        progress["scaler"] = json.dumps(scaler.state_dict())
    save_tensors(path, tensors, {"format": _FORMAT, "version": str(_VERSION)} | progress)


def load_checkpoint(
    path: Path, model: Trained, loss: nn.Module, optimizer: Optimizer, scaler: GradScaler | None = None
) -> tuple[int, float, list[Epoch]]:
    """Load the saved state into model, loss and optimizer; return `epoch`, `seconds` and `history` as saved.

    A `scaler` is loaded too; it is left unchanged if the checkpoint is from an earlier version that did not save it.

    Raises:
        NestKALAError: if the file is missing, is damaged, or belongs to a run with other settings.
    """
    try:
        tensors, metadata = load_tensors(path, f"the checkpoint {path}")
    except FileNotFoundError:
        raise NestKALAError(f"there is no checkpoint {path}") from None
    if metadata.get("format") != _FORMAT:
        raise NestKALAError(f"{path} is not a NestKALA checkpoint")
    anew = f"nestkala train --config {path.parent / 'config.yaml'} --output NEW trains from scratch"
    check_version(f"the checkpoint {path}", metadata.get("version"), _VERSION, anew)
    try:
        epoch, seconds = int(metadata["epoch"]), float(metadata["seconds"])
        if epoch < 0:
            raise ValueError(f"after {epoch} epochs")
    except (KeyError, ValueError) as error:
        raise NestKALAError(f"the checkpoint {path} does not record its progress: {error!r}") from None
    history = history_from_json(metadata.get("history", ""), str(path))
    scaling = _scaling(metadata["scaler"], path) if "scaler" in metadata and scaler is not None else None
    trained_state = _below(tensors, "model.")
    if any(name.startswith("class_layer.") for name in model.trained_state().keys() - trained_state.keys()):
        raise NestKALAError(f"the checkpoint {path} has a closed-form start from an earlier version: {anew}")
    if any(name.endswith(".coordinates") for name in model.trained_state().keys() - trained_state.keys()):
        raise NestKALAError(f"the checkpoint {path} has an adapter from an earlier version: {anew}")
    model.load_trained_state(trained_state)
    of_loss = {name.replace("centres", "centers"): value for name, value in _below(tensors, "loss.").items()}
    try:
        loss.load_state_dict(of_loss)  # which earlier versions spelled differently
    except RuntimeError as error:
        raise NestKALAError(f"the checkpoint {path} belongs to another loss: {one_line(error)}") from None
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = {str(number): parameter for number, parameter in enumerate(trained)}
    states: dict[int, dict[str, Any]] = {}
    for name, value in _below(tensors, "optimizer.").items():
        index, _, key = name.partition(".")
        if index not in parameters:
            raise NestKALAError(f"the checkpoint {path} belongs to another run: it has a state for parameter {index}")
        if value.shape not in (torch.Size(), parameters[index].shape):
            raise NestKALAError(f"the checkpoint {path} belongs to another run: {name} is {tuple(value.shape)}")
        states.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    if scaler is not None and scaling is not None:
        scaler.load_state_dict(scaling)
    return epoch, seconds, history


def _scaling(text: str, path: Path) -> dict[str, float]:
    """The saved `GradScaler.state_dict`, in which everything but the step counter is positive."""
    try:
        state = json.loads(text)
        scaling = {key: state[key] for key in ("scale", "growth_factor", "backoff_factor", "growth_interval")}
        steps = state["_growth_tracker"]
        if not (all(0 < value < math.inf for value in scaling.values()) and 0 <= steps < math.inf):
            raise ValueError(text)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise NestKALAError(f"the checkpoint {path} does not record how gradients are scaled") from None
    return scaling | {"_growth_tracker": steps}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
