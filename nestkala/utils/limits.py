"""What numbers settings, files and callers may give."""

import math
from numbers import Integral
from typing import Any, TypeGuard

MAX_LENGTH = 512
"""Of a code, in bits."""

MAX_RANK = 4096
MAX_UNNAMED = 1000
MAX_THREADS = 1024
MAX_PROMPT_LENGTH = 1000


def is_whole_number(value: Any, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Whether it is an int, Python's or numpy's, within these limits; True and 2.0 are none."""
    return type(value) is not bool and isinstance(value, Integral) and bool(least <= int(value) <= most)
