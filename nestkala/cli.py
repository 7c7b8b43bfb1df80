"""The command line: `nestkala train`, `nestkala list`, `nestkala cache`; train.py is the first of them."""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from .config import Config, base_config, check_files, check_resumable
from .errors import NestKALAError, one_line


@dataclass(frozen=True)
class Cache:
    """Show or clear the cache of tokens that the frozen backbone made of images."""

    action: Positional[Literal["show", "clear"]] = "show"
    """show the folder and its size, or delete the tokens in it"""

    folder: Path | None = None
    """by default NESTKALA_CACHE or ~/.cache/nestkala/tokens"""


@dataclass(frozen=True)
class List:
    """Show the losses or heads that are installed, with their papers and the packages that bring them."""

    kind: Positional[Literal["losses", "heads"]]
    """what to list"""


def main(args: Sequence[str] | None = None) -> int:
    """`nestkala COMMAND ...`. Returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    args = list(sys.argv[1:] if args is None else args)
    return _guarded(lambda: _command(args))


def train_main(args: Sequence[str] | None = None) -> int:
    """`train.py ...`, the same as `nestkala train ...`. Returns the exit code."""
    args = list(sys.argv[1:] if args is None else args)
    return _guarded(lambda: _train(base := base_config(args), tyro.cli(Config, default=base, args=args)))


def _command(args: list[str]) -> None:
    base = base_config(args[1:] if args[:1] == ["train"] else [])
    Train = Annotated[Config, subcommand("train", default=base)]
    command = tyro.cli(
        Train | Annotated[List, subcommand("list")] | Annotated[Cache, subcommand("cache")],
        config=(OmitArgPrefixes,),
        prog="nestkala",
        description="Binary image codes of every length from one training run and a few labelled images per class.",
        args=args,
    )
    if isinstance(command, Cache):
        _cache(command)
    elif isinstance(command, List):
        _list(command)
    else:
        _train(base, command)


def _train(base: Config, config: Config) -> None:
    check_resumable(base, config)
    check_files(config)
    _check_torchvision()
    from .run import train

    train(config)


def _list(command: List) -> None:
    from tabulate import tabulate

    from .plugins import plugins

    rows = [
        (plugin.name, getattr(plugin.load(), "paper", ""), plugin.origin) for plugin in plugins(command.kind).values()
    ]
    print(tabulate(rows, ("name", "paper", "origin"), tablefmt="simple"))


def _cache(command: Cache) -> None:
    from .token_cache import cache_size, clear_cache, default_folder

    folder = command.folder or default_folder()
    size = clear_cache(folder) if command.action == "clear" else cache_size(folder)
    done = "deleted " if command.action == "clear" else ""
    print(f"{folder}: {done}{size.segments} segments, {size.bytes / 1e9:.2f} GB")


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


def _guarded(action: Callable[[], object]) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        action()
    except (NestKALAError, OSError) as error:  # OSError: no room, no permission, a file where a folder should be
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; a training run goes on from its last checkpoint with --resume FOLDER",
            file=sys.stderr,
        )
        return 130
    return 0
