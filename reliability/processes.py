"""Compares training in several processes to training in one, and lets one of them die."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

from nestkala.plugins import plugins

from .finding import Finding
from .kills import make_model, shard_files, training
from .launching import Launch
from .workers import command, done, launched

PROCESSES = (2, 4)
IMAGES, QUERIES = 82, 3  # unequal shares, and fewer queries than processes
TOLERANCE = 1e-9
"""For float64, because processes add in a different order."""
LEAST = 0.01
"""Smaller numbers are compared to this one: some, such as a bias gradient before BatchNorm, are 0 up to rounding."""
PATIENCE = 60.0
"""Seconds that processes may outlive one that died."""


def run(folder: Path, losses: Sequence[str] = ()) -> list[Finding]:
    """Compare to one process, for these losses or all that ship; let a process die."""
    images, model = make_model(folder, IMAGES)
    chosen = losses or [*sorted(plugins("losses")), "kiddo-hswd"]
    return [
        *equal_to_one(images, chosen, PROCESSES, folder),
        few_images(images, model, folder),
        *dying(images, folder),
    ]


def equal_to_one(images: Path, losses: Sequence[str], counts: Sequence[int], folder: Path) -> list[Finding]:
    """Train with every loss in one and in several processes, with the same global batches in float64."""
    differences: dict[int, dict[str, float]] = {count: {} for count in counts}
    for loss in losses:
        runs = {count: folder / "equal" / f"{loss} {count}" for count in (1, *counts)}
        for count, place in runs.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            # 32 training images: the last batch is not full.
            same = ("--loss", loss, "--precision", "fp64", "--batch-size", 12, "--queries", QUERIES)
            done(launched(training(images, place, 3, *same), count), folder / "log")
        for count in counts:
            differences[count][loss] = _difference(runs[1], runs[count])
    return [
        Finding(
            f"training in {count} processes, {len(losses)} losses",
            f"parameters, memories and momentum within {max(found.values()):.0e} of one process's, scores equal",
            f"{TOLERANCE:.0e} in float64",
            max(found.values()) <= TOLERANCE,
            {"differences": found},
        )
        for count, found in differences.items()
    ]


def _difference(one: Path, several: Path) -> float:
    """The largest difference of any tensor, relative to its largest number; infinite if scores differ."""
    lengths = [json.loads((run / "metrics.json").read_text(encoding="utf-8"))["lengths"] for run in (one, several)]
    first, second = (load_file(run / "checkpoint.safetensors") for run in (one, several))
    if lengths[0] != lengths[1] or first.keys() != second.keys():
        return float("inf")
    return max(
        float(np.abs(first[name] - second[name]).max() / max(np.abs(first[name]).max(), LEAST))
        for name in first
        if first[name].size
    )


def few_images(images: Path, model: Path, folder: Path) -> Finding:
    """Encode fewer images than there are processes."""
    few, counts = folder / "few", (1, max(PROCESSES))
    few.mkdir()
    for path in sorted(images.rglob("*.png"))[: max(PROCESSES) - 1]:
        shutil.copy(path, few)
    for count in counts:
        encode = command("encode", few, folder / f"few {count}", "--model", model, "--shard-size", 1, "--workers", 0)
        done(launched(encode, count), folder / "log")
    one, several = (shard_files(folder / f"few {count}") for count in counts)
    return Finding(
        f"encoding {max(PROCESSES) - 1} images in {max(PROCESSES)} processes",
        f"{'the same' if one == several else 'other'} files as with one process",
        "the same files",
        one == several,
    )


def dying(images: Path, folder: Path) -> list[Finding]:
    """Kill one of two launched processes; give one of two an unreadable image."""
    return [_killed(images, folder), _failed(images, folder)]


def _killed(images: Path, folder: Path) -> Finding:
    run = folder / "dying"
    with _training(images, run, 1_000_000) as launch:
        launch.wait_until((run / "checkpoint.safetensors").exists)
        launch.processes[1].kill()
        return _ended(launch, "one of two training processes killed", "Signal 9 (SIGKILL)")


def _failed(images: Path, folder: Path) -> Finding:
    broken = sorted(images.rglob("*.png"))[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    error = f"error: cannot decode image '{broken.relative_to(images)}'"
    try:
        with _training(images, folder / "failing", 1) as launch:
            launch.wait_until(lambda: error in launch.said)
            return _ended(launch, "one of two training processes reading a broken image", error)
    finally:
        broken.write_bytes(content)


def _training(images: Path, run: Path, epochs: int) -> Launch:
    arguments: Sequence[object] = training(images, run, epochs).arguments[0]  # type: ignore[assignment]
    return Launch(2, "-m", "nestkala", *arguments, folder=run.with_name(f"{run.name} log"))


def _ended(launch: Launch, what: str, error: str) -> Finding:
    started, others = time.perf_counter(), launch.descendants
    code = launch.wait(10 * PATIENCE)
    left = psutil.wait_procs(others, timeout=PATIENCE)[1]
    for process in left:
        process.kill()
    seconds, said = time.perf_counter() - started, launch.said
    held = seconds <= PATIENCE and code != 0 and error in said and not left
    return Finding(
        what,
        f"all ended within {seconds:.1f} s, exit code {code}, the error "
        f"{'printed' if error in said else 'not printed'}",
        f"within {PATIENCE:.0f} s, with the error",
        held,
        {"seconds": seconds} | ({} if held else {"said": said}),
    )
