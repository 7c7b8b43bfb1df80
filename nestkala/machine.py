"""How much of the machine a process takes."""

import os

from .errors import NestKALAError


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
