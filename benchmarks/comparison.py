"""Times two ways of doing the same thing, and reports the result."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of the baseline and of ours, taken in turn.

    Attributes:
        plain: seconds of the baseline, per repetition.
        ours: seconds of ours, per repetition.
    """

    plain: list[float]
    ours: list[float]

    @property
    def ratios(self) -> list[float]:
        """Speedup of ours in each repetition."""
        return [plain / ours for plain, ours in zip(self.plain, self.ours, strict=True)]

    @property
    def text(self) -> str:
        """The median ratio, its range, and the median seconds."""
        ratios = self.ratios
        spread = f" ({min(ratios):.1f} to {max(ratios):.1f})" if len(ratios) > 1 else ""
        plain, ours = statistics.median(self.plain), statistics.median(self.ours)
        return f"{statistics.median(ratios):.1f} times faster{spread}: {plain:.3g} s, {ours:.3g} s"


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        what: what is measured.
        baseline: what it is compared to.
        measured: the result, as text.
        target: the target, as text.
        met: whether the target was met.
        figures: the numbers behind it, for JSON.
    """

    what: str
    baseline: str
    measured: str
    target: str
    met: bool
    figures: dict[str, object] = field(default_factory=dict)


def in_turn(plain: Work, ours: Work, repeats: int, warm_up: bool = True) -> Timing:
    """Time both in turn; with `warm_up`, after an uncounted call of ours, which may compile."""
    if warm_up:
        ours()
    pairs = [(seconds(plain), seconds(ours)) for _ in range(repeats)]
    return Timing([a for a, _ in pairs], [b for _, b in pairs])


def medians(*works: Work, repeats: int) -> list[float]:
    """Median seconds of each, taken in turn so that a busy moment affects all; the first calls do not count."""
    times = [[seconds(work) for work in works] for _ in range(repeats + 1)]
    return [statistics.median(of_one) for of_one in zip(*times[1:], strict=True)]


def seconds(work: Work) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
