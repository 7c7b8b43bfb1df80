"""Randomness from a seed alone, leaving the process's own generators as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context torch's CPU generator starts from `seed`; afterwards it continues as if nothing had happened.

    Generators of GPUs are left alone, so draw on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of GPUs, too
        yield
