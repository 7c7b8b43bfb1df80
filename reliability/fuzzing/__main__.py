"""`python -m reliability.fuzzing`: findings as they come, one a line of JSON, and in the end how much was tried."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from .harness import fuzz


@dataclass(frozen=True)
class Fuzzing:
    """Spoil files at random and see what the loaders do."""

    seconds: float = 60
    """in all"""
    seed: int = 0
    """of the files"""
    folder: Path | None = None
    """to work in, empty; the last file that was tried stays there. By default a temporary one"""
    only: tuple[str, ...] = ()
    """names of loaders; by default all"""


def main(given: Fuzzing) -> None:
    """Fuzz and print."""
    logging.disable()  # the token cache warns of every damaged file
    with TemporaryDirectory() as temporary:
        for line in fuzz(given.seconds, given.seed, given.folder or Path(temporary), given.only):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Fuzzing))
