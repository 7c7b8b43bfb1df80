"""Loaders given randomly damaged files: `python -m reliability.fuzzing --seconds 300 --seed 0`."""

from .harness import run

__all__ = ["run"]
