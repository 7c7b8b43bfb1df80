"""How much of a long list of cases is tried by default."""

from collections.abc import Sequence

import pytest
from _pytest.mark import ParameterSet


def first_and_slow(names: Sequence[str]) -> list[ParameterSet]:
    """The number of each case under its name; all but the first are slow."""
    return [pytest.param(n, id=name, marks=[pytest.mark.slow] if n else []) for n, name in enumerate(names)]
