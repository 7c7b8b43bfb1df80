"""What of the machine a process takes."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .errors import NestKALAError

_MEMORY = Path("/dev/shm")


def find_temporary_folder() -> None:
    """Where the system has none for temporary files that can be written to, let the one in memory be it.

    Libraries, torch among them, need one; a container whose file system may only be read has no other.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if os.access(_MEMORY, os.W_OK):
            tempfile.tempdir = os.environ["TMPDIR"] = str(_MEMORY)  # of processes that are started, too


def cores_per_process() -> int:
    """Processor cores for this process, its share where a launcher started several on the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def compute_threads(asked: int = 0, environment: Mapping[str, str] = os.environ) -> int:
    """Threads that this process computes with: as many as asked for, OMP_NUM_THREADS, or its share of the cores.

    A launcher sets OMP_NUM_THREADS to 1 where nobody else has. That 1 is nobody's wish, and does not count.

    Args:
        asked: by the settings; 0 for what the environment says.
        environment: variables of this process.
    """
    if asked:
        return asked
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # further numbers are for nested regions
    wished = int(first) if first.isdecimal() else 0
    launched = any(name in environment for name in ("LOCAL_WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"))
    return cores_per_process() if wished == 0 or (wished == 1 and launched) else wished


def decoding_workers(asked: int | None) -> int:
    """Threads that decode images: as many as asked for, or one for every core of this process, at most 8.

    Raises:
        NestKALAError: fewer than none asked for.
    """
    if asked is not None and asked < 0:
        raise NestKALAError(f"workers must be 0 or more, not {asked}")
    return min(8, cores_per_process()) if asked is None else asked
