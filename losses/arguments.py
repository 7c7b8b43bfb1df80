"""Checks of arguments to losses."""

import math

from torch import Tensor

LARGEST_SEED = 2**31 - 1


def not_negative(name: str, value: float) -> float:
    """Return the value. Raises ValueError unless it is finite and 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return value


def positive(name: str, value: float) -> float:
    """Return the value. Raises ValueError unless it is finite and above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, not {value}")
    return value


def whole(name: str, value: float, least: int, most: float = math.inf) -> int:
    """Return the argument as an int. Settings may write it as a float, such as 3.0.

    Raises:
        ValueError: if it is not whole, is below `least`, or is above `most`.
    """
    if not (least <= value <= most and float(value).is_integer()):
        limits = f"of {least} or more" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limits}, not {value}")
    return int(value)


def can_be_looked_at(x: Tensor) -> bool:
    """Whether a step may check the values of x. On a GPU every check would force a synchronization."""
    return x.device.type == "cpu"
