"""The folder of a run: created by one run, and resumed by one process at a time."""

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
"""Seconds within which the workers of a killed run, which still hold its folder, end too."""


class InUseError(NestKALAError):
    """Another process is using a run folder."""


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Lock a run folder against other processes on this machine, until the context or this process ends.

    Does nothing on Windows, and on file systems without such locks.

    Args:
        folder: existing folder.
        patience: seconds to wait for another process.

    Raises:
        InUseError: if another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + patience
    try:
        while not _locks(descriptor):
            if time.monotonic() >= until:
                raise InUseError(f"{folder} is in use by another process")
            time.sleep(0.1)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # processes forked meanwhile have the descriptor as well
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True


def check_output(settings: OutputSettings) -> None:
    """Raise NestKALAError if a new run would write to a file, or to a folder that is not empty."""
    folder = settings.output
    if folder is None or settings.resume is not None:
        return
    there = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else []
    if not all(is_unfinished(path) for path in there):
        raise NestKALAError(f"{folder} already exists: resume it with --resume {folder}, or choose another --output")


def claim(config: Config, until: ExitStack | None) -> Path:
    """Create the folder of a new run, or return the one that it resumes, locked until `until` ends.

    Args:
        config: settings, which may name the folder.
        until: stack that ends with the run; None if the folder is already held.

    Raises:
        InUseError: if another process is using this run.
        NestKALAError: if the folder that `output` names is not empty.
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
    check_output(config)  # again, now that nobody else can write there
    remove_unfinished(folder)
    return folder


def has_checkpoint(settings: OutputSettings, folder: Path, trains: bool) -> bool:
    """Whether a run resumes from a checkpoint in its folder.

    Args:
        settings: say whether it resumes an earlier run.
        folder: folder of the run.
        trains: whether there is training; without it there is no checkpoint.

    Raises:
        NestKALAError: if it should resume, but the folder holds only a trained model.
    """
    if settings.resume is None:
        return False
    there = (folder / CHECKPOINT).exists()
    if trains and not there and (folder / "model.safetensors").exists():
        raise NestKALAError(f"{folder} holds a trained model but no {CHECKPOINT}: there is nothing to resume")
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
