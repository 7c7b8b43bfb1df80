"""Exact search in growing collections of 64-bit codes, up to sizes that cannot be made from real images."""

import time
from collections.abc import Iterator

import numpy as np

from .comparison import Row
from .search import BITS, CENTERS, Codes, compared, flipped, indexed, on_threads, uniform

QUERIES = 100


def run(largest: int) -> list[Row]:
    """Every power of ten from 100,000 to the largest, clustered and uniform."""
    sizes = [10**power for power in range(5, len(str(largest)))]
    with on_threads(1):
        return [row for size in sizes for row in _measured(size)]


def _measured(size: int) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (CENTERS, BITS // 8), dtype=np.uint8)
    collections = {
        "10,000 clusters, 10 % of bits flipped": lambda num: flipped(rng, centers, 0.10, num),
        "uniform": lambda num: uniform(rng, num),
    }
    for what, codes in collections.items():
        yield from _rows(what, codes(size), codes(QUERIES))


def _rows(what: str, codes: Codes, queries: Codes) -> Iterator[Row]:
    index = indexed(codes)
    index.search(queries[:1])  # compiles
    started = time.perf_counter()
    index.search(queries[:1], method="tables")
    built = time.perf_counter() - started
    what += f", tables of {index.tables_bytes / len(index):.1f} bytes per code built in {built:.1f} s"
    for bits in (64, 32):
        yield compared(what, index, queries, bits, 0)
