"""Calls in separate processes that start quickly and can be killed at any moment."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from nestkala.cli import main

from .launching import free_port

_context = multiprocessing.get_context("forkserver")
# Imports that commands need anyway, done in advance so that time is spent on the work.
_context.set_forkserver_preload(
    ["torchvision", "nestkala.search.shards", "nestkala.search.folder", "nestkala.training.run", __name__]
)


@dataclass(frozen=True)
class Call:
    """The work of a process.

    Attributes:
        function: importable function to call; its return value is the exit code, None for 0.
        arguments: its arguments.
        environment: environment variables to set.
    """

    function: Callable[..., int | None]
    arguments: tuple[object, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def command(*arguments: object) -> Call:
    """`nestkala` with these arguments."""
    return Call(main, ([str(argument) for argument in arguments],), {"OMP_NUM_THREADS": "1"})


def launched(call: Call, processes: int) -> list[Call]:
    """The call as started by a launcher in this many processes, which form a group and compute on the CPU."""
    if processes == 1:
        return [call]
    shared = {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        Call(call.function, call.arguments, {**call.environment, **shared, "RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(processes)
    ]


class Workers:
    """Processes that were started together.

    Args:
        calls: the work of each process.
        log: file for their output; with several processes, one numbered file each.
    """

    def __init__(self, calls: Sequence[Call], log: Path) -> None:
        numbered = [log.with_name(f"{log.name}.{number}") for number in range(len(calls))]
        self._logs = [log] if len(calls) == 1 else numbered
        for own in self._logs:
            own.unlink(missing_ok=True)
        self._processes: list[BaseProcess] = [
            _context.Process(target=_work, args=given) for given in zip(calls, self._logs, strict=True)
        ]
        for process in self._processes:
            process.start()

    @property
    def running(self) -> bool:
        """Whether any is running."""
        return any(process.is_alive() for process in self._processes)

    def kill(self, count: int | None = None) -> int:
        """Kill the first ones (all by default) by SIGKILL; return how many were running."""
        victims = [process for process in self._processes[:count] if process.is_alive()]
        for process in victims:
            process.kill()
        for process in victims:
            process.join()
        return len(victims)

    def wait(self, seconds: float = 1800.0) -> int:
        """The exit code furthest from 0, once all have ended.

        Raises:
            RuntimeError: if they have not ended after this many seconds; they are then killed.
        """
        deadline = time.monotonic() + seconds
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
        if self.running:
            self.kill()
            raise RuntimeError(f"still running after {seconds:.0f} s\n{self.said}")
        return max((process.exitcode or 0 for process in self._processes), key=abs)

    @property
    def said(self) -> str:
        """Their output so far, each after its number if there are several."""
        printed = [log.read_text(encoding="utf-8", errors="replace") if log.exists() else "" for log in self._logs]
        return printed[0] if len(printed) == 1 else "".join(f"[process {n}]\n{own}\n" for n, own in enumerate(printed))


def done(calls: Sequence[Call], log: Path) -> None:
    """Run these calls at the same time until they end.

    Raises:
        RuntimeError: if one fails.
    """
    workers = Workers(calls, log)
    if code := workers.wait():
        raise RuntimeError(f"exit code {code}\n{workers.said}")


def _work(call: Call, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(call.environment)
    tqdm.set_lock(threading.RLock())  # the default is a system semaphore, which a killed process would leave behind
    code = call.function(*call.arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)  # at once, without waiting for a library's daemons
