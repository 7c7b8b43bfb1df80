"""What of the machine a process takes."""

import os
import tempfile
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


def decoding_workers(asked: int | None) -> int:
    """Processes that decode images beside this one: as many as asked for, or by the number of cores.

    Raises:
        NestKALAError: fewer than none asked for.
    """
    if asked is not None and asked < 0:
        raise NestKALAError(f"workers must be 0 or more, not {asked}")
    return min(8, cores_per_process() // 2) if asked is None else asked
