"""Search time by length and size, in collections too large to be made from real images.

python -m benchmarks.large_index

The codes are random clusters with as many distinct prefixes as possible at short lengths, so searches are slower than
with trained codes.
"""

import resource
import time

import numpy as np
import tyro
from numpy.typing import NDArray
from tabulate import tabulate

from nestkala.index import PrefixIndex

from .comparison import medians

CLUSTERS = 100_000
LENGTHS = (8, 16, 24, 32, 64)
COARSE = (24, 32)


def main(items: tuple[int, ...] = (1_000_000, 10_000_000, 100_000_000), repeats: int = 5) -> None:
    """Print milliseconds for one query, k = 10, 64-bit codes.

    Args:
        items: sizes of the collection.
        repeats: repetitions of each measurement, after one that does not count; medians are printed.
    """
    headers = ("codes", "build, s", *(f"{bits} bits, ms" for bits in LENGTHS))
    headers += (*(f"{bits}, then 64 of 1,000, ms" for bits in COARSE), "peak memory, GiB")
    rows = [_measured(size, repeats) for size in items]
    print(tabulate(rows, headers, tablefmt="github", floatfmt=("", ".0f", *[".2f"] * 7, ".1f")))


def _measured(size: int, repeats: int) -> list[object]:
    codes = _codes(size)
    started = time.perf_counter()
    index = PrefixIndex.build(codes)
    built = time.perf_counter() - started
    query = codes[:1].copy()
    del codes

    def milliseconds(bits: int, shortlist: int | None = None) -> float:
        return 1000 * medians(lambda: index.search(query, 10, bits, shortlist=shortlist), repeats=repeats)[0]

    searches = [*map(milliseconds, LENGTHS), *(milliseconds(bits, 1000) for bits in COARSE)]
    return [f"{size:,}", built, *searches, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]


def _codes(items: int) -> NDArray[np.uint8]:
    """Packed codes of 64 bits (items, 8): cluster centers with each bit flipped with probability 1/16."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (CLUSTERS, 8), dtype=np.uint8)[rng.integers(CLUSTERS, size=items)]
    for start in range(0, items, 2**20):
        block = codes[start : start + 2**20]
        flips = rng.integers(
            0, 2**64, (4, len(block)), dtype=np.uint64
        )  # a bit is set in all four with probability 1/16
        block ^= np.bitwise_and.reduce(flips).view(np.uint8).reshape(-1, 8)
    return codes


if __name__ == "__main__":
    tyro.cli(main)
