"""The folder of a run: made by one run alone, and gone on with by one at a time."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from ..settings.config import Config
from ..settings.groups import OutputSettings
from ..utils.errors import NestKALAError
from ..utils.files import is_unfinished, remove_unfinished

if sys.platform != "win32":
    import fcntl

CHECKPOINT = "checkpoint.safetensors"
_PATIENCE = 10.0
"""Seconds in which the workers of a killed run end, too, which hold its folder so long."""


class InUseError(NestKALAError):
    """Another process is at work in a run folder."""


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep a run folder from other processes on this machine, until the context or this process ends.

    On Windows, and on file systems without such locks, it does nothing.

    Args:
        folder: that is there.
        patience: seconds to wait for another process.

    Raises:
        InUseError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + patience
    try:
        while not _locks(descriptor):
            if time.monotonic() >= until:
                raise InUseError(f"{folder} is in use: another process is at this run")
            time.sleep(0.1)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # processes that were forked meanwhile have the descriptor, too
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are no locks here
        return True
    return True


def check_output(settings: OutputSettings) -> None:
    """Raise NestKALAError where a new run is to go to a file, or to a folder that holds anything."""
    folder = settings.output
    if folder is None or settings.resume is not None:
        return
    there = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
    if not all(is_unfinished(path) for path in there):
        raise NestKALAError(f"{folder} exists already: go on with --resume {folder}, or name another --output")


def claim(config: Config, until: ExitStack | None) -> Path:
    """The folder of a run, made for it, or the one that it resumes, where no other process works until then.

    Args:
        config: names it, or does not.
        until: what ends with the run; None for a folder that is held already.

    Raises:
        InUseError: another process is at this run.
        NestKALAError: the folder that `output` names holds something.
    """
    if config.resume is not None:
        folder = config.resume
    elif config.output is not None:
        folder = config.output
        check_output(config)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _new_folder(config)
    if until is not None:
        until.enter_context(held(folder, _PATIENCE))
    check_output(config)  # anew, now that nobody else can write there
    remove_unfinished(folder)
    return folder


def has_checkpoint(settings: OutputSettings, folder: Path, trains: bool) -> bool:
    """Whether a run goes on from a checkpoint in its folder.

    Args:
        settings: whether it resumes an earlier one.
        folder: of the run.
        trains: whether there is training, without which there is no checkpoint.

    Raises:
        NestKALAError: it is to go on, and the folder holds a trained model alone.
    """
    if settings.resume is None:
        return False
    there = (folder / CHECKPOINT).exists()
    if trains and not there and (folder / "model.safetensors").exists():
        raise NestKALAError(f"{folder} holds a trained model and no {CHECKPOINT}: there is nothing to go on from")
    return there


def _new_folder(config: Config) -> Path:
    data, shots = Path(config.data), config.labels_per_class
    if config.data == "none" and config.archive is not None:
        data = config.archive
    labels = "all" if shots == "all" else f"{shots}shot"
    name = f"{data.name}-{labels}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    Path("runs").mkdir(exist_ok=True)
    for number in count(1):
        folder = Path("runs", name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")
