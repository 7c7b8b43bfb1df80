"""Calls in processes of their own, quickly started and killed at any moment."""

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
# What a command imports on its way as well, so that time goes by in its work.
_context.set_forkserver_preload(
    ["torchvision", "nestkala.search.shards", "nestkala.search.folder", "nestkala.training.run", __name__]
)


@dataclass(frozen=True)
class Call:
    """What a process does.

    Attributes:
        function: to call, which can be imported; what it returns is the process's exit code, None for 0.
        arguments: of it.
        environment: variables that are set for it.
    """

    function: Callable[..., int | None]
    arguments: tuple[object, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def command(*arguments: object) -> Call:
    """`nestkala` with these arguments."""
    return Call(main, ([str(argument) for argument in arguments],), {"OMP_NUM_THREADS": "1"})


def launched(call: Call, processes: int) -> list[Call]:
    """The call as a launcher starts it in so many processes, which find each other and compute on the CPU."""
    if processes == 1:
        return [call]
    shared = {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "", "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        Call(call.function, call.arguments, {**call.environment, **shared, "RANK": str(n), "LOCAL_RANK": str(n)})
        for n in range(processes)
    ]


class Workers:
    """Processes that have been started together.

    Args:
        calls: what each does.
        log: file that takes all that they print; where they are several, each has one of its own, with its number.
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
        """Whether any is."""
        return any(process.is_alive() for process in self._processes)

    def kill(self, count: int | None = None) -> int:
        """Kill the first ones, by default all, by SIGKILL; return how many of them were running."""
        victims = [process for process in self._processes[:count] if process.is_alive()]
        for process in victims:
            process.kill()
        for process in victims:
            process.join()
        return len(victims)

    def wait(self, seconds: float = 1800.0) -> int:
        """The exit code that is furthest from 0, once all have ended.

        Raises:
            RuntimeError: they have not after so many seconds, and are killed.
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
        """What they have printed so far, each after its number where they are several."""
        printed = [log.read_text(encoding="utf-8", errors="replace") if log.exists() else "" for log in self._logs]
        return printed[0] if len(printed) == 1 else "".join(f"[process {n}]\n{own}\n" for n, own in enumerate(printed))


def done(calls: Sequence[Call], log: Path) -> None:
    """Do these at the same time, to their end.

    Raises:
        RuntimeError: one has failed.
    """
    workers = Workers(calls, log)
    if code := workers.wait():
        raise RuntimeError(f"exit code {code}\n{workers.said}")


def _work(call: Call, log: Path) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(call.environment)
    tqdm.set_lock(threading.RLock())  # the default is a semaphore of the system, which a killed process leaves there
    code = call.function(*call.arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)  # at once: no daemon of a library holds it up
