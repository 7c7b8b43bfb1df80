"""Training in several processes beside training in one, and what happens when one of them dies."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

from nestkala.plugins import plugins

from .figure import Figure
from .kills import make_model, shard_files, training
from .workers import command, done, launched

PROCESSES = (2, 4)
IMAGES, QUERIES = 82, 3  # shares that differ, and fewer queries than processes
TOLERANCE = 1e-9
"""Of float64: processes add up in another order."""
LEAST = 0.01
"""Numbers below are compared with it: some, such as the gradient of a bias before BatchNorm, are 0 but for rounding."""
PATIENCE = 60.0
"""Seconds that processes may outlive one that died."""


def run(folder: Path, losses: Sequence[str] = ()) -> list[Figure]:
    """Compare with one process, for these losses or all that ship; let a process die."""
    images, model = make_model(folder, IMAGES)
    chosen = losses or [*sorted(plugins("losses")), "kiddo-hswd"]
    return [
        *equal_to_one(images, chosen, PROCESSES, folder),
        few_images(images, model, folder),
        *dying(images, folder),
    ]


def equal_to_one(images: Path, losses: Sequence[str], counts: Sequence[int], folder: Path) -> list[Figure]:
    """Train with every loss in one process and in so many, with the same global batches in float64."""
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
        Figure(
            f"training in {count} processes, {len(losses)} losses",
            f"parameters, memories and momentum within {max(found.values()):.0e} of one process's, scores equal",
            f"{TOLERANCE:.0e} in float64",
            max(found.values()) <= TOLERANCE,
            {"differences": found},
        )
        for count, found in differences.items()
    ]


def _difference(one: Path, several: Path) -> float:
    """The largest of all tensors', relative to the tensor's largest number; infinite where scores differ."""
    lengths = [json.loads((run / "metrics.json").read_text(encoding="utf-8"))["lengths"] for run in (one, several)]
    first, second = (load_file(run / "checkpoint.safetensors") for run in (one, several))
    if lengths[0] != lengths[1] or first.keys() != second.keys():
        return float("inf")
    return max(
        float(np.abs(first[name] - second[name]).max() / max(np.abs(first[name]).max(), LEAST))
        for name in first
        if first[name].size
    )


def few_images(images: Path, model: Path, folder: Path) -> Figure:
    """Encode fewer images than there are processes."""
    few, counts = folder / "few", (1, max(PROCESSES))
    few.mkdir()
    for path in sorted(images.rglob("*.png"))[: max(PROCESSES) - 1]:
        shutil.copy(path, few)
    for count in counts:
        encode = command("encode", few, folder / f"few {count}", "--model", model, "--shard-size", 1, "--workers", 0)
        done(launched(encode, count), folder / "log")
    one, several = (shard_files(folder / f"few {count}") for count in counts)
    return Figure(
        f"encoding {max(PROCESSES) - 1} images in {max(PROCESSES)} processes",
        f"{'the same' if one == several else 'other'} files as by one",
        "the same files",
        one == several,
    )


def dying(images: Path, folder: Path) -> list[Figure]:
    """Kill one of two launched processes; let one of two meet an image that cannot be read."""
    return [_killed(images, folder), _failed(images, folder)]


def _killed(images: Path, folder: Path) -> Figure:
    run, log = folder / "dying", folder / "dying.log"
    launcher = _launch(log, *training(images, run, 1_000_000).arguments[0])  # type: ignore[misc]
    while not (run / "checkpoint.safetensors").exists():
        _still_running(launcher, log)
    _processes(launcher)[1].kill()
    return _ended(launcher, log, "one of two training processes killed", "Signal 9 (SIGKILL)")


def _failed(images: Path, folder: Path) -> Figure:
    run, log = folder / "failing", folder / "failing.log"
    broken = sorted(images.rglob("*.png"))[0]
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    try:
        launcher = _launch(log, *training(images, run, 1).arguments[0])  # type: ignore[misc]
        error = f"error: cannot decode image '{broken.relative_to(images)}'"
        while error not in log.read_text(encoding="utf-8"):
            _still_running(launcher, log)
        return _ended(launcher, log, "one of two training processes meeting a broken image", error)
    finally:
        broken.write_bytes(content)


def _launch(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    call = [*launcher, "--main_process_port", "0", "-m", "nestkala", *arguments]
    with log.open("wb") as file:
        return subprocess.Popen(call, env=environment, stdout=file, stderr=subprocess.STDOUT)


def _processes(launcher: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Those that it launched, in the order of their ranks."""
    children = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def _still_running(launcher: "subprocess.Popen[bytes]", log: Path) -> None:
    if launcher.poll() is not None:
        raise RuntimeError(f"the launcher ended too early: {log.read_text(encoding='utf-8')[-2000:]}")
    time.sleep(0.02)


def _ended(launcher: "subprocess.Popen[bytes]", log: Path, what: str, error: str) -> Figure:
    started, others = time.perf_counter(), psutil.Process(launcher.pid).children(recursive=True)
    try:
        code = launcher.wait(10 * PATIENCE)
    finally:
        launcher.kill()
        left = psutil.wait_procs(others, timeout=1)[1]
        for process in left:
            process.kill()
    seconds, told = time.perf_counter() - started, error in log.read_text(encoding="utf-8")
    return Figure(
        what,
        f"all ended within {seconds:.1f} s, exit code {code}, the error {'told' if told else 'not told'}",
        f"within {PATIENCE:.0f} s, with the error",
        seconds <= PATIENCE and code != 0 and told and not left,
        {"seconds": seconds},
    )
