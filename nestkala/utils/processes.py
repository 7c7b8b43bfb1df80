"""What the processes do together that a launcher started; the end of the group that they form.

A group that is left to the interpreter can abort the process: as it exits, threads of the group outlive what they use.
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
"""How long processes wait for each other: one may have more to do, or to download. A death ends the wait at once."""


@contextmanager
def ending_process_group() -> Iterator[None]:
    """End the process group that is made inside; one that was there before is left to whoever made it.

    After an error the group ends with the process, once the error has been told. If it ended at once, the other
    processes would fail at its loss, and for that the launcher might kill this one before it says what was wrong.
    """
    end_process_group_at_exit()
    there_before = _is_there()
    yield
    if not there_before and _is_there():
        distributed.destroy_process_group()


def from_main_process(action: Callable[[], Given]) -> Given:
    """What an action gives that the main process alone does, in all processes, which must all call this.

    Raises:
        NestKALAError, OSError: that the action raised, in all of them, so that none waits for another.
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
    """See to it that a process group which is still there when this process exits is ended."""
    atexit.register(_end_what_is_left)


def _end_what_is_left() -> None:
    # NCCL ends by itself at exit; if it were asked to, it would wait for processes that may have died.
    if _is_there() and "nccl" not in distributed.get_backend():
        distributed.destroy_process_group()


def _is_there() -> bool:
    return distributed.is_available() and distributed.is_initialized()
