"""Search with PrefixIndex compared to a faiss scan of the same codes; each number is a ratio within one run.

python -m benchmarks.prefix_search --run runs/RUN

The collection consists of the codes of a run's gallery, repeated with random bit flips, up to --items. The control
(--control) is a run trained at one length only: its loss from truncation is what nesting gains.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import tyro
from numpy.typing import NDArray
from tabulate import tabulate

from nestkala.analysis.finished_run import FinishedRun
from nestkala.index import PrefixIndex

from .comparison import medians

Codes = NDArray[np.uint8]
Labels = NDArray[np.bool_]
K = 10


def main(
    run: Path, control: Path | None = None, items: int = 10_000_000, flip_rate: float = 0.02, repeats: int = 5
) -> None:
    """Print the ratios, and the quality of coarse-to-fine search.

    Args:
        run: run folder of a nested model, whose data is available.
        control: run folder of a model with the same longest length, trained only at that length.
        items: number of codes in the collection.
        flip_rate: probability that a bit of a repeated code is flipped.
        repeats: repetitions of each measurement, after one that does not count; medians are printed.
    """
    threads = faiss.omp_get_max_threads()
    print(f"{items:,} codes of {run}, bits flipped at {flip_rate:g}; {threads} threads; medians of {repeats}")
    for name, folder in {"nested": run, "control": control}.items():
        if folder is not None:
            queries, query_labels, codes, labels = _collection(folder, items, flip_rate)
            index = PrefixIndex.build(codes)
            print(f"\n{name}: {folder}\n")
            print(_quality(index, labels, queries, query_labels))
            if folder == run:
                print(_against_faiss(codes[:1_000_000], queries, repeats))
                print(_short_against_full(index, codes, queries, repeats))
                print(_kept(codes))


def _against_faiss(codes: Codes, queries: Codes, repeats: int) -> str:
    """Full-length search, batches of several sizes, on at most a million codes."""
    index = PrefixIndex.build(codes)
    rows = []
    for batch in (1, 100, 1000):
        asked = np.resize(queries, (batch, queries.shape[1]))
        ours, theirs = medians(
            lambda asked=asked: index.search(asked, K),  # type: ignore[misc]
            lambda asked=asked: faiss.knn_hamming(asked, codes, K, variant="mc"),  # type: ignore[misc]
            repeats=4 * repeats,
        )
        rows.append((batch, 1000 * ours, 1000 * theirs, ours / theirs))
    headers = (f"batch, {len(codes):,} codes", "PrefixIndex, ms", "faiss, ms", "ratio (at most 1.15)")
    return tabulate(rows, headers, tablefmt="github", floatfmt=("", ".2f", ".2f", ".2f")) + "\n"


def _short_against_full(index: PrefixIndex, codes: Codes, queries: Codes, repeats: int) -> str:
    """One query at a time at every length, compared to a scan of all full codes."""
    full = medians(lambda: faiss.knn_hamming(queries[:1], codes, K, variant="mc"), repeats=repeats)[0]
    rows: list[Sequence[Any]] = []
    for bits in (8, 16, 20, 24, 32, 48, 64):
        seconds = medians(lambda bits=bits: index.search(queries[:1], K, bits), repeats=repeats)[0]  # type: ignore[misc]
        rows.append((bits, f"{index.num_prefixes(bits):,}", 1000 * seconds, full / seconds))
    headers = ("bits", "distinct prefixes", "ms", f"times faster than faiss over 64 bits ({1000 * full:.1f} ms)")
    return tabulate(rows, headers, tablefmt="github", floatfmt=("", "", ".3f", ".1f")) + "\n"


def _kept(codes: Codes) -> str:
    """Cost to build, store and open a collection with file names like those of photographs."""
    ids = [f"2026/{n % 366:03d}/IMG_{n:08d}.jpg" for n in range(len(codes))]
    metadata = [{"size": 2_000_000 + n, "mtime_ns": 1_790_000_000_000_000_000 + n} for n in range(len(codes))]
    parts = [
        PrefixIndex.build(codes[s], ids[s], metadata=metadata[s])
        for s in (slice(start, start + 2**20) for start in range(0, len(codes), 2**20))
    ]
    together = medians(lambda: _extended(parts), repeats=1)[0]
    index = _extended(parts)
    with TemporaryDirectory() as folder:
        path = Path(folder, "all.index")
        saved = medians(lambda: index.save(path), repeats=1)[0]
        checked = medians(lambda: PrefixIndex.load(path), repeats=1)[0]
        opened = medians(lambda: PrefixIndex.load(path, verify=False), repeats=1)[0]
        size = path.stat().st_size
    rows = [(f"{size / len(codes):.1f}", together, saved, checked, opened)]
    headers = ("bytes per image", "from shards, s", "save, s", "open and check, s", "open, s")
    return tabulate(rows, headers, tablefmt="github", floatfmt=("", ".1f", ".1f", ".1f", ".4f")) + "\n"


def _extended(parts: Sequence[PrefixIndex]) -> PrefixIndex:
    index = PrefixIndex.empty(parts[0].bits)
    index.extend(parts)
    return index


def _quality(index: PrefixIndex, labels: Labels, queries: Codes, asked: Labels) -> str:
    """mAP@100 of coarse-to-fine search and of short search alone, relative to full search, and the speedup."""

    def quality(search: Callable[[], Any]) -> tuple[float, float]:
        started = time.perf_counter()
        hits = search()
        took = time.perf_counter() - started
        relevant = (labels[np.array(hits.ids, np.int64)] & asked[:, None]).any(axis=2)  # (Q, 100)
        precision = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
        found = (precision * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)
        return float(found.mean()), took

    full, full_seconds = quality(lambda: index.search(queries, 100, method="scan"))
    rows: list[Sequence[Any]] = [("64", full, 1.0, 1.0)]
    for bits in (8, 12, 16, 24):
        for shortlist in (None, 1000, 10_000):
            found, seconds = quality(
                lambda bits=bits, shortlist=shortlist: index.search(queries, 100, bits, shortlist=shortlist)  # type: ignore[misc]
            )
            name = f"{bits}" if shortlist is None else f"{bits}, then 64 of {shortlist:,}"
            rows.append((name, found, found / full, full_seconds / seconds))
    headers = ("bits", "mAP@100", "of the full search's", "times faster")
    return tabulate(rows, headers, tablefmt="github", floatfmt=("", ".4f", ".3f", ".1f")) + "\n"


def _collection(folder: Path, items: int, flip_rate: float) -> tuple[Codes, Labels, Codes, Labels]:
    """Queries, their labels, codes, their labels."""
    run = FinishedRun.open(folder).encode(progress=True)
    gallery = run.gallery
    rng = np.random.default_rng(0)
    chosen = np.resize(np.arange(len(gallery)), items)
    codes = gallery[chosen]
    for start in range(len(gallery), items, 2**20):  # the first ones are unchanged
        block = codes[start : start + 2**20]
        block ^= np.packbits(rng.random((len(block), 8 * block.shape[1]), np.float32) < flip_rate, axis=1)
    return run.queries, run.query_labels, codes, run.gallery_labels[chosen]


if __name__ == "__main__":
    tyro.cli(main)
