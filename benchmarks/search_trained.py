"""Exact search among trained codes, and among the same codes with their bits in another order."""

from pathlib import Path

import numpy as np

from nestkala.analysis.finished_run import FinishedRun
from nestkala.utils.errors import NestKALAError

from .comparison import Row
from .search import BITS, Codes, compared, flipped, indexed, on_threads

QUERIES, RATE = 100, 0.02


def run(folder: Path | None, items: int) -> list[Row]:
    """The first 64 bits of a run's gallery, repeated with 2 % of the bits flipped.

    Args:
        folder: run folder of a model with codes of 64 bits or more, whose data is available.
        items: number of codes to search.
    """
    if folder is None:
        raise NestKALAError("give the folder of a training run with --run")
    trained, rng = FinishedRun.open(folder).encode(progress=True), np.random.default_rng(0)
    gallery, unseen = (codes[:, : BITS // 8] for codes in (trained.gallery, trained.queries))
    if gallery.shape[1] < BITS // 8:
        raise NestKALAError(f"{folder} has codes of fewer than {BITS} bits")
    queries = {
        f"queries with {RATE:.0%} of bits flipped": (flipped(rng, gallery, RATE, QUERIES), 300),
        "queries never seen": (unseen[rng.permutation(len(unseen))[:QUERIES]], 50),
    }
    codes, order = flipped(rng, gallery, RATE, items), rng.permutation(BITS)
    rows = []
    with on_threads(1):
        for what, permuted in (("nested", False), ("the same bits permuted", True)):
            index = indexed(_in_order(codes, order) if permuted else codes)
            index.search(index.codes[:1], method="tables")  # builds the tables
            for asked, (given, target) in queries.items():
                sought = _in_order(given, order) if permuted else given
                name = f"trained on {Path(trained.config.data).name}, {what}, {asked}"
                rows.append(compared(name, index, sought, BITS, 0 if permuted else target))
    return rows


def _in_order(codes: Codes, order: np.ndarray) -> Codes:
    block = 2**20
    parts = (np.unpackbits(codes[n : n + block], axis=1)[:, order] for n in range(0, len(codes), block))
    return np.concatenate([np.packbits(part, axis=1) for part in parts])
