"""Coordination of the processes that a launcher started, and the end of their process group.

Leaving a group to the interpreter can abort the process: at exit, threads of the group outlive the objects they use.
"""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import distributed

from .errors import NestKALAError

Given = TypeVar("Given")
PATIENCE = timedelta(days=30)
"""How long processes wait for each other: one may have more work or downloads. If one dies, the wait ends at once."""


@contextmanager
def ending_process_group() -> Iterator[None]:
    """Destroy the process group created inside; a group that existed before is left to its creator.

    After an error the group is destroyed at exit, once the error has been printed. If it were destroyed at once, the
    other processes would fail, and the launcher might then kill this one before it prints what was wrong.
    """
    end_process_group_at_exit()
    there_before = _is_there()
    yield
    if not there_before and _is_there():
        distributed.destroy_process_group()


def from_main_process(action: Callable[[], Given]) -> Given:
    """Run an action in the main process only and return its result in all processes, all of which must call this.

    Raises:
        NestKALAError, OSError: raised by the action, in all processes, so that none waits for another.
    """
    outcome: list[Given | NestKALAError | OSError | None] = [None]
    if PartialState().is_main_process:
        try:
            outcome = [action()]
        except (NestKALAError, OSError) as error:
            outcome = [error]
    (given,) = broadcast_object_list(outcome)
    if isinstance(given, NestKALAError | OSError):
        raise given
    return given


@cache
def end_process_group_at_exit() -> None:
    """Make sure that a process group which still exists when this process exits is destroyed."""
    atexit.register(_end_what_is_left)


def _end_what_is_left() -> None:
    # NCCL ends by itself at exit; destroying it would wait for processes that may have died.
    if _is_there() and "nccl" not in distributed.get_backend():
        distributed.destroy_process_group()


def _is_there() -> bool:
    return distributed.is_available() and distributed.is_initialized()
