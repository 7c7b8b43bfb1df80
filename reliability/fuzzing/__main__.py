"""`python -m reliability.fuzzing`: prints findings as lines of JSON, and finally the number of trials."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from .harness import fuzz


@dataclass(frozen=True)
class Fuzzing:
    """Damage files at random and watch the loaders."""

    seconds: float = 60
    """seconds in total"""
    seed: int = 0
    """seed for the files"""
    folder: Path | None = None
    """empty working folder; keeps the last file that was tried. By default a temporary one"""
    only: tuple[str, ...] = ()
    """names of loaders; by default all"""


def main(given: Fuzzing) -> None:
    """Fuzz and print."""
    logging.disable()  # the token cache warns about every damaged file
    with TemporaryDirectory() as temporary:
        for line in fuzz(given.seconds, given.seed, given.folder or Path(temporary), given.only):
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Fuzzing))
