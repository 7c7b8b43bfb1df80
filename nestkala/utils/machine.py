"""The machine's resources that a process uses."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import NestKALAError

_MEMORY = Path("/dev/shm")


def find_temporary_folder() -> None:
    """If the system has no writable folder for temporary files, use the one in memory.

    Libraries, including torch, need one, and a container with a read-only file system has no other.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if os.access(_MEMORY, os.W_OK):
            tempfile.tempdir = os.environ["TMPDIR"] = str(_MEMORY)  # for child processes as well


def cores_per_process() -> int:
    """Number of cores for this process, its share if a launcher started several on the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def compute_threads(asked: int = 0, environment: Mapping[str, str] = os.environ) -> int:
    """Number of threads that this process computes with: the setting, OMP_NUM_THREADS, or its share of the cores.

    A launcher sets OMP_NUM_THREADS to 1 if it is not set. That 1 is not the user's choice, and is ignored.

    Args:
        asked: number from the settings; 0 to use the environment.
        environment: environment variables of this process.
    """
    if asked:
        return asked
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # further numbers are for nested regions
    wished = int(first) if first.isdecimal() else 0
    launched = any(name in environment for name in ("LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"))
    return cores_per_process() if wished == 0 or (wished == 1 and launched) else wished


def decoding_workers(asked: int | None) -> int:
    """Number of threads that decode images: the setting, or one per core of this process, at most 8.

    Raises:
        NestKALAError: if the setting is negative.
    """
    if asked is not None and asked < 0:
        raise NestKALAError(f"workers must be 0 or more, not {asked}")
    return min(8, cores_per_process()) if asked is None else asked
