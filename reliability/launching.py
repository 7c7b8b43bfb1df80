"""Processes under Accelerate's launcher, on CPUs."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil


def free_port() -> int:
    """A free port for processes that will start later and meet there.

    It is below the ports that the system hands out, so that nobody takes it in the meantime. The search starts at a
    number specific to this process, so that concurrent searches find different ports.
    """
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("there is no free port")


class Launch:
    """A launcher and its processes; leaving the context kills those still running.

    Args:
        processes: number of processes.
        arguments: a script, or -m and a module, and its arguments.
        folder: created for the output, with separate files for each process.
    """

    def __init__(self, processes: int, *arguments: object, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._log = folder, folder / "launcher.log"
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        if processes > 1:
            launcher += ["--multi_gpu", "--main_process_port", str(free_port()), "--log_dir", str(folder)]
        environment = os.environ | {
            "ACCELERATE_USE_CPU": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "PET_REDIRECTS": "3",  # torchrun's --redirects, which Accelerate does not have: stdout and stderr to files
            "PYTHONUNBUFFERED": "1",  # buffered output is lost when a process is killed
        }
        with self._log.open("wb") as log:
            command = [*launcher, *map(str, arguments)]
            self._launcher = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._launcher.poll() is None:
            self.kill()

    @property
    def said(self) -> str:
        """The output so far: of the launcher or the single process, and of each of several processes."""
        printed = {f"process {log.parent.name}, {log.stem}": log for log in self._folder.glob("*/attempt_0/*/std*.log")}
        logs = {"launcher": self._log, **dict(sorted(printed.items()))}
        return "".join(f"[{who}]\n{log.read_text(encoding='utf-8', errors='replace')}\n" for who, log in logs.items())

    @property
    def processes(self) -> list[psutil.Process]:
        """The launched processes that are still running, in the order of their ranks."""
        children = [child for child in psutil.Process(self._launcher.pid).children() if "RANK" in child.environ()]
        return sorted(children, key=lambda child: int(child.environ()["RANK"]))

    @property
    def descendants(self) -> list[psutil.Process]:
        """The launched processes and all their children that are still running."""
        return psutil.Process(self._launcher.pid).children(recursive=True)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds. Raises RuntimeError if everything ends before."""
        ended = False
        while not condition():
            if ended:
                raise RuntimeError(f"ended too early, exit code {self._launcher.returncode}\n{self.said}")
            time.sleep(0.02)
            ended = self._launcher.poll() is not None

    def wait(self, seconds: float = 1800.0) -> int:
        """The launcher's exit code, once it ends. Raises RuntimeError after this many seconds, and kills everything."""
        try:
            return self._launcher.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"still running after {seconds:.0f} s\n{self.said}") from None

    def done(self) -> str:
        """The output, once all have succeeded. Raises RuntimeError, with the output, if one has not."""
        if code := self.wait():
            raise RuntimeError(f"exit code {code}\n{self.said}")
        return self.said

    def kill(self) -> None:
        """Kill the launcher and everything it started, by SIGKILL."""
        descendants = self.descendants
        self._launcher.kill()
        self._launcher.wait()
        for process in descendants:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(descendants, timeout=10)
