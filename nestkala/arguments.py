"""Checks of what callers give."""

import math
from typing import Any, TypeGuard

import numpy as np


def is_whole_number(value: Any, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Whether it is an int, Python's or numpy's, within these limits; True and 2.0 are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(least <= value <= most)
