"""Randomness from a seed alone, without changing the process's own generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator within this context, and restore its state afterwards.

    GPU generators are not affected, so draw random numbers on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPU generators as well
        yield
