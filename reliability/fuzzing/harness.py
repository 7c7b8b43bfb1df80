"""Tries the loaders one after another and reports what they did not handle.

A loader may succeed, or raise NestKALAError or OSError. Everything else is a finding: another error, a trial of more
than `MOST_SECONDS`, memory beyond `MOST_BYTES`, or the end of the process.
"""

import json
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from zlib import crc32

import numpy as np

from nestkala.utils.errors import NestKALAError, one_line

from ..bad_inputs.good import make_good
from ..finding import Finding
from .mutations import mutated
from .targets import make_targets

MOST_SECONDS = 10
MOST_BYTES = 4 * 2**30


class TooSlow(BaseException):
    """A trial took too long."""


def fuzz(seconds: float, seed: int, folder: Path, names: tuple[str, ...] = ()) -> Iterator[dict[str, object]]:
    """Damage files and read them, in this process.

    Args:
        seconds: total time, divided among the loaders, after each has read its valid files.
        seed: determines each file, together with the number of the trial.
        folder: empty working folder.
        names: names of the loaders; all by default.

    Yields:
        One finding at a time, {"target", "trial", "what", "content" in hex digits}, one per kind; finally
        {"trials": {target: number}}.
    """
    targets = [
        target for target in make_targets(make_good(folder / "good"), folder) if not names or target.name in names
    ]
    trials, spent = dict.fromkeys((target.name for target in targets), 0), [0.0] * len(targets)
    found = set[tuple[str, str]]()
    for target in targets:  # imports and compilation on first use do not count
        for content in target.seeds:
            target.path.write_bytes(content)
            target.load()
    end = time.monotonic() + seconds
    with bounds():
        while (started := time.monotonic()) < end:
            chosen = spent.index(min(spent))
            target = targets[chosen]
            rng = np.random.default_rng([seed, crc32(target.name.encode()), trials[target.name]])
            content = mutated(target.seeds[int(rng.integers(len(target.seeds)))], target.seeds, rng)
            target.path.write_bytes(content)
            what = came_of(target.load)
            if what and (target.name, what) not in found:
                found.add((target.name, what))
                trial = trials[target.name]
                yield {"target": target.name, "trial": trial, "what": what, "content": content.hex()}
            trials[target.name] += 1
            spent[chosen] += time.monotonic() - started
    yield {"trials": trials}


def run(seconds: float = 60, seed: int = 0) -> list[Finding]:
    """Fuzz in a separate process, so that a crash is a finding too."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "reliability.fuzzing", "--seconds", str(seconds), "--seed", str(seed)]
        done = subprocess.run([*command, "--folder", folder], capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    trials: dict[str, int] = next((line["trials"] for line in lines if "trials" in line), {})
    findings = [line for line in lines if "trials" not in line]
    if not trials:
        findings.append({"what": f"the process ended with {done.returncode}: {done.stderr[-500:]}"})
    tried = f"{sum(trials.values()):,} damaged files of {len(trials)} kinds in {seconds:g} s: {len(findings)} findings"
    details = {"seed": seed, "trials": trials, "findings": findings}
    return [Finding("loaders fuzzed", tried, "success or one clear error, within bounds", not findings, details)]


def came_of(load: Callable[[], object]) -> str:
    """What was not allowed, with its place in our code; an empty string if nothing."""
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        load()
    except (NestKALAError, OSError) as error:
        return "" if one_line(error).isprintable() else "an error that does not print"
    except TooSlow:
        return f"took more than {MOST_SECONDS} s"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "nestkala" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {place}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return ""


@contextmanager
def bounds() -> Iterator[None]:
    """Within this context, slow trials are stopped, and memory beyond the limit is refused."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    handler = signal.signal(signal.SIGALRM, stop)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, handler)
