"""Limits on numbers in settings, files and arguments."""

import math
from numbers import Integral
from typing import Any, TypeGuard

MAX_LENGTH = 512
"""Maximum length of a code, in bits."""

MAX_RANK = 4096
MAX_UNNAMED = 1000
MAX_THREADS = 1024
MAX_PROMPT_LENGTH = 1000


def is_whole_number(value: Any, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Whether it is an int, Python's or numpy's, within these limits; True and 2.0 do not count."""
    return type(value) is not bool and isinstance(value, Integral) and bool(least <= int(value) <= most)
