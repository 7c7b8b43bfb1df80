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


def can_be_looked_at(x: Tensor) -> bool:
    """Whether a step may check the values of x: on a GPU each look would make it wait."""
    return x.device.type == "cpu"
