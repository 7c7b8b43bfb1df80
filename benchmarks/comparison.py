"""How a benchmark times two ways of doing one thing, and what it reports."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of the plain way and of ours, taken in turn.

    Attributes:
        plain: of each repetition.
        ours: likewise.
    """

    plain: list[float]
    ours: list[float]

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, in each repetition."""
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
    """A line of the table.

    Attributes:
        what: is measured.
        baseline: that it is compared with.
        measured: in words.
        target: in words.
        met: whether the target was reached.
        figures: behind it, for JSON.
    """

    what: str
    baseline: str
    measured: str
    target: str
    met: bool
    figures: dict[str, object] = field(default_factory=dict)


def in_turn(plain: Work, ours: Work, repeats: int, warm_up: bool = True) -> Timing:
    """Time both in turn, with `warm_up` after a call of ours that does not count, since it may compile."""
    if warm_up:
        ours()
    pairs = [(seconds(plain), seconds(ours)) for _ in range(repeats)]
    return Timing([a for a, _ in pairs], [b for _, b in pairs])


def seconds(work: Work) -> float:
    """Of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def machine() -> str:
    """Processor, cores, threads, system and versions."""
    info = Path("/proc/cpuinfo")
    found = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    processor = found[0] if found else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{len(found) or '?'} cores of {processor}, {torch.get_num_threads()} threads, {gpu}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def revision() -> str:
    """The commit that is measured, and whether files differ from it."""
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
