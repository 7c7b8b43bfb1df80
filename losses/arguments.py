"""Checks of what losses are given."""

import math

from torch import Tensor

LARGEST_SEED = 2**31 - 1


def not_negative(name: str, value: float) -> float:
    """The value. Raises ValueError unless it is 0 or more, and finite."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def positive(name: str, value: float) -> float:
    """The value. Raises ValueError unless it is above 0, and finite."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value}")
    return value


def whole(name: str, value: float, least: int, most: float = math.inf) -> int:
    """The whole number that an argument is, be it 3 or, as settings have it, 3.0.

    Raises:
        ValueError: it is none, below `least`, or above `most`.
    """
    if not (least <= value <= most and float(value).is_integer()):
        limits = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limits}, not {value}")
    return int(value)


def check_batch(h: Tensor, targets: Tensor, indices: Tensor, memory: Tensor, all_targets: Tensor) -> None:
    """Raise ValueError unless a batch fits together, and fits the memory (N, b) and labels (N, C) of all images.

    Indices must be 0 to N - 1: negative ones would count from the end.
    """
    if not len(h) == len(targets) == len(indices):
        raise ValueError(f"{len(h)} rows of h do not fit {len(targets)} rows of targets and {len(indices)} indices")
    if h.shape[1] != memory.shape[1]:
        raise ValueError(f"h has {h.shape[1]} columns, the loss is for {memory.shape[1]} bits")
    if targets.shape[1] != all_targets.shape[1]:
        raise ValueError(f"targets of {targets.shape[1]} classes, the training set has {all_targets.shape[1]}")
    outside = (indices < 0) | (indices >= len(memory))
    if outside.any():
        raise ValueError(f"indices must be 0 to {len(memory) - 1}, and hold {indices[outside][0].item()}")
