"""The command line, `nestkala COMMAND ...`; train.py is `nestkala train`."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Union

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
from .settings.arguments import plain_help, summary
from .settings.checks import check_files, check_resumable
from .settings.flags import Flags, Train, base_config, described, given, with_flags
from .utils.console import escape_what_stdout_lacks
from .utils.errors import NestKALAError, one_line, without_passwords

_COMMANDS = (
    *(Encode, Index, Search, Duplicates, Serve, Classify, Advise),
    *(Eval, Report, Experiment, Export, List, Cache),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run `nestkala COMMAND ...` and return the exit code: 0, 2 for a user error, 130 after Ctrl-C."""
    args = list(sys.argv[1:] if args is None else args)
    return guarded(lambda: _command(args), args[:1])


def train_main(args: Sequence[str] | None = None) -> int:
    """Run `train.py ...`, which is `nestkala train ...`, and return the exit code."""
    args = list(sys.argv[1:] if args is None else args)
    return guarded(
        lambda: _train(tyro.cli(Train, config=(OmitArgPrefixes,), default=described(args), args=args), args), ["train"]
    )


def _command(args: list[str]) -> None:
    if args == ["--version"]:
        print(f"nestkala {version('nestkala')}")
        return
    named = args[0] if args else ""
    train = subcommand(
        "train",
        default=described(args[1:]) if named == "train" else Train(),
        description=None if named == "train" else summary(Train),
    )
    others = [_offered(command, named) for command in _COMMANDS]
    commands: Any = Union[Annotated[Train, train], *others]
    command = tyro.cli(
        commands,
        config=(OmitArgPrefixes,),
        prog="nestkala",
        description="Binary image codes of every length from one training run and a few labeled images per class. "
        "Print the version with nestkala --version.",
        args=args,
    )
    if isinstance(command, Flags):
        _train(command, args[1:])
    else:
        command.run()


def _offered(command: type, named: str) -> Any:
    """A command with its whole help if it is the one named, and otherwise with one line for the list of commands."""
    if command.__name__.lower() == named:
        return plain_help(command)
    return Annotated[command, subcommand(description=summary(command))]


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
            f"torch {torch.__version__} and the installed torchvision do not match ({error}): reinstall "
            "both from one source, with pip install --force-reinstall -c constraints.txt torch torchvision"
        ) from None
    del torchvision


_HOW_TO_RESUME = {
    "train": "; resume the run from its last checkpoint with --resume FOLDER",
    "encode": "; run the same command again to write the missing shards",
    "experiment": "; finished runs are kept: run the same command again to continue",
    "index": "; indexed images are kept: run the same command again to continue",
}


def guarded(action: Callable[[], object], command: Sequence[str] = ()) -> int:
    """Run an action and return the exit code; user errors are printed as one line.

    Args:
        action: what to run.
        command: name of the `nestkala` command, if any, for the hint after Ctrl-C.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    escape_what_stdout_lacks()
    try:
        action()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has quit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (NestKALAError, OSError) as error:  # OSError: disk full, no permission, a file in place of a folder
        print(f"error: {without_passwords(one_line(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted" + "".join(_HOW_TO_RESUME.get(name, "") for name in command), file=sys.stderr)
        return 130
    return 0
