"""The command line, `nestkala COMMAND ...`; train.py is `nestkala train`."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, subcommand

from .commands import (
    Advise,
    Cache,
    Classify,
    Duplicates,
    Encode,
    Eval,
    Experiment,
    Export,
    Index,
    List,
    Report,
    Search,
    Serve,
)
from .settings.checks import check_files, check_resumable
from .settings.flags import Flags, Train, base_config, described, given, with_flags
from .utils.console import escape_what_stdout_lacks
from .utils.errors import NestKALAError, one_line


def main(args: Sequence[str] | None = None) -> int:
    """`nestkala COMMAND ...`. Returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    args = list(sys.argv[1:] if args is None else args)
    return guarded(lambda: _command(args), args[:1])


def train_main(args: Sequence[str] | None = None) -> int:
    """`train.py ...`, the same as `nestkala train ...`. Returns the exit code."""
    args = list(sys.argv[1:] if args is None else args)
    return guarded(lambda: _train(_flags(args), args), ["train"])


def _flags(args: list[str]) -> Flags:
    return tyro.cli(Train, config=(OmitArgPrefixes,), default=described(args), args=args)


def _command(args: list[str]) -> None:
    if args == ["--version"]:
        print(f"nestkala {version('nestkala')}")
        return
    train = subcommand("train", default=described(args[1:]) if args[:1] == ["train"] else Train())
    commands: Any = (
        Annotated[Train, train]
        | Encode
        | Index
        | Search
        | Duplicates
        | Serve
        | Classify
        | Advise
        | Eval
        | Report
        | Experiment
        | Export
        | List
        | Cache
    )
    command = tyro.cli(
        commands,
        config=(OmitArgPrefixes,),
        prog="nestkala",
        description="Binary image codes of every length from one training run and a few labeled images per class. "
        "nestkala --version prints the version.",
        args=args,
    )
    if isinstance(command, Flags):
        _train(command, args[1:])
    else:
        command.run()


def _train(parsed: Flags, args: Sequence[str]) -> None:
    flags = given(parsed, args)
    base = base_config(flags)
    config = with_flags(base, flags)
    check_resumable(base, config)
    check_files(config)
    _check_torchvision()
    from .training.run import train

    train(config)


def _check_torchvision() -> None:
    import torch

    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise NestKALAError(
            f"torch {torch.__version__} and the torchvision installed beside it are not a pair ({error}): reinstall "
            "both from one source, pip install --force-reinstall -c constraints.txt torch torchvision"
        ) from None
    del torchvision


_GOES_ON = {
    "train": "; the run goes on from its last checkpoint with --resume FOLDER",
    "encode": "; the same command goes on with the shards that are missing",
    "experiment": "; what is finished stays, and the same command goes on from there",
    "index": "; what is in the index stays, and the same command goes on from there",
}


def guarded(action: Callable[[], object], command: Sequence[str] = ()) -> int:
    """Do it, and return the exit code of a process that did; what the user can mend is told in one line.

    Args:
        action: to do.
        command: its name in `nestkala`, if it has one, for what to do after Ctrl-C.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    escape_what_stdout_lacks()
    try:
        action()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (NestKALAError, OSError) as error:  # OSError: no room, no permission, a file where a folder should be
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted" + "".join(_GOES_ON.get(name, "") for name in command), file=sys.stderr)
        return 130
    return 0
