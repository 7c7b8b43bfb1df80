"""Adding a few codes to a large index file: ours appends, the baseline rewrites the file."""

import statistics
import tempfile
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from nestkala.index import PrefixIndex

from .comparison import Row, in_turn

ADDED, REPEATS, TARGET = 1_000, 5, 10


def run(items: int = 10_000_000) -> list[Row]:
    """Add 1,000 64-bit codes, with ids and metadata like those of photographs, to an index of `items`."""
    rng, number = np.random.default_rng(0), count()

    def drawn(begin: int, num: int) -> PrefixIndex:
        names = (f"2019/italy/{number}.jpg" for number in range(begin, begin + num))
        codes = rng.integers(0, 256, (num, 8), dtype=np.uint8)
        return PrefixIndex.build(codes, names, metadata=({"size": n, "modified": 1.5e9 + n} for n in range(num)))

    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "many.index"), Path(folder, "other.index")
        drawn(0, items).save(path)

        def update(verify: bool, output: Path) -> None:
            index = PrefixIndex.load(path, verify)
            index.extend([drawn(items + ADDED * next(number), ADDED)])
            index.save(output)

        rows = []
        for verify in (False, True):
            timing = in_turn(partial(update, verify, other), partial(update, verify, path), REPEATS)
            rows.append(
                Row(
                    f"loading with{'' if verify else 'out'} verification, adding {ADDED:,} to {items:,} codes, saving",
                    "rewriting the whole file",
                    timing.text,
                    "" if verify else f"{TARGET} times",
                    verify or statistics.median(timing.ratios) >= TARGET,
                    {"plain": timing.plain, "ours": timing.ours},
                )
            )
        return rows
