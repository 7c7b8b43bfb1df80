"""Exact search with tables compared to scans and to approximate indexes, on the same codes.

Times are processor seconds of one thread, which other work on the machine affects less than wall time.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import faiss
import numpy as np
from numpy.typing import NDArray

from nestkala.codes import prefix
from nestkala.index import PrefixIndex
from nestkala.index.local.segment import Segment
from nestkala.index.local.sorted_codes import Method, SortedCodes
from nestkala.index.strings import Strings
from nestkala.utils.packed_words import ordered_words

from .comparison import Row, medians

Codes = NDArray[np.uint8]
K, BITS, CENTERS, BATCH = 10, 64, 10_000, 200
_BLOCK = 500_000


@dataclass(frozen=True)
class Case:
    """A collection of 64-bit codes, and the required speedups of search in it.

    Attributes:
        what: description.
        codes: (num) -> packed codes, of images or of queries.
        targets: {bits: required speedup over a scan}.
        k: number of results.
        scale: factor for the number of codes.
    """

    what: str
    codes: Callable[[int], Codes]
    targets: dict[int, float]
    k: int = K
    scale: float = 1


def run(items: int = 10_000_000, queries: int = 100) -> list[Row]:
    """Every case: the faiss scan, the counting variant of earlier versions, and ours, one query at a time."""
    rng = np.random.default_rng(0)
    centers = rng.integers(0, 256, (CENTERS, BITS // 8), dtype=np.uint8)
    one = centers[:1]
    at_ten = partial(flipped, rng, centers, 0.10)
    cases = (
        Case("10,000 clusters, 10 % of bits flipped", at_ten, {64: 100, 48: 0, 32: 150, 24: 0, 16: 0, 8: 0}),
        Case("10,000 clusters, 15 % flipped", partial(flipped, rng, centers, 0.15), {64: 30, 48: 0, 32: 0}),
        Case("uniform", partial(uniform, rng), {64: 8, 48: 0, 32: 100, 24: 0}),
        Case("identical", partial(flipped, rng, one, 0.0), {64: 1 / 1.1}),
        Case("one tight cluster, 5 % flipped", partial(flipped, rng, one, 0.05), {64: 1 / 1.1}),
        Case("first half constant", partial(_half, rng, slice(0, 4)), {64: 1 / 1.1}),
        Case("last half constant", partial(_half, rng, slice(4, 8)), {64: 1 / 1.1}),
        Case("uniform, one tenth of the codes, k = 100", partial(uniform, rng), {64: 1 / 1.1}, k=100, scale=0.1),
    )
    with on_threads(1):
        rows = [row for case in cases for row in _measured(case, items, queries)]
        return rows + _approximate(items // 10, at_ten)


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Make faiss and our search use this many threads."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    with patch.dict(os.environ, OMP_NUM_THREADS=str(number)):
        yield
    faiss.omp_set_num_threads(before)


def _measured(case: Case, items: int, num_queries: int) -> list[Row]:
    index, queries = indexed(case.codes(int(items * case.scale))), case.codes(num_queries)
    index.search(queries[:1], case.k, method="tables")  # builds the tables
    rows = [compared(case.what, index, queries, bits, target, case.k) for bits, target in case.targets.items()]
    if case.targets[BITS] > 1:
        rows += [_batch(case, index, queries, threads) for threads in (1, 2)]
        with TemporaryDirectory() as folder:  # as written by `nestkala index`
            path = Path(folder, "codes.index")
            index.save(path)
            mapped = PrefixIndex.load(path, verify=False)
            rows.append(compared(f"{case.what}, memory-mapped", mapped, queries, BITS, 0, case.k))
    return rows


def indexed(codes: Codes) -> PrefixIndex:
    """An index of these codes, with eight-digit numbers as names, for which `build` would take most of the time."""
    words = np.sort(ordered_words(codes), axis=0)
    numbers, digits = np.arange(len(codes)), np.empty((len(codes), 8), np.uint8)
    for place in range(8):
        digits[:, place] = numbers // 10 ** (7 - place) % 10 + ord("0")
    ids = Strings(digits.ravel(), 8 * np.arange(1, len(codes) + 1))
    metadata = Strings(np.tile(np.frombuffer(b"{}", np.uint8), len(codes)), 2 * np.arange(1, len(codes) + 1))
    return PrefixIndex([Segment(SortedCodes(words, BITS), ids, metadata)], BITS)


def compared(what: str, index: PrefixIndex, queries: Codes, bits: int, target: float, k: int = K) -> Row:
    """One query at a time on one thread: faiss's two scans, our scan and ours, which must agree."""
    codes, asked = prefix(index.codes, bits), prefix(queries, bits)
    found: dict[str, list[list[int]]] = {}

    def plain(query: Codes, variant: str) -> list[int]:
        return faiss.knn_hamming(query, codes, k, variant=variant)[0][0].tolist()

    def ours(query: Codes, method: Method = "auto") -> list[int]:
        return index.search(query, k, bits, method=method).distances[0].tolist()

    ways: dict[str, Callable[[Codes], list[int]]] = {
        "faiss": partial(plain, variant="hc"),
        "before": partial(plain, variant="mc"),
        "scan": partial(ours, method="scan"),
        "ours": ours,
    }
    for name in ("scan", "ours"):
        ways[name](asked[:1])  # compiles
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name, way in ways.items():  # one after another: a scan between two queries would flush the caches
        for n in range(len(asked) if name == "ours" else 10):
            started = time.thread_time()
            distances = way(asked[n : n + 1])
            times[name].append(time.thread_time() - started)
            found.setdefault(name, []).append(sorted(distances))
    for name in ("before", "scan", "ours"):
        assert found[name][:10] == found["faiss"], f"{name} found different results"
    ms = {name: 1000 * statistics.median(seconds) for name, seconds in times.items()}
    ratio = ms["faiss"] / ms["ours"]
    goal = "" if not target else f"{target:g} times" if target > 1 else "at most 1.1 times the scan"
    return Row(
        f"{len(index):,} codes, {what}, {bits} bits, k = {k}",
        f"faiss scan {ms['faiss']:.2f} ms; its counting variant {ms['before']:.2f}; ours {ms['scan']:.2f}",
        f"{ratio:.1f} times faster: {ms['ours']:.3f} ms; our scan {ms['before'] / ms['scan']:.1f} times",
        goal,
        ratio >= target,
        times | {"ms": ms},
    )


def _batch(case: Case, index: PrefixIndex, queries: Codes, threads: int) -> Row:
    """A batch, in wall time."""
    asked = np.concatenate([queries, case.codes(BATCH - len(queries))])
    codes = index.codes
    with on_threads(threads):
        index.search(asked, case.k)
        seconds = medians(
            lambda: faiss.knn_hamming(asked, codes, case.k, variant="hc"),
            lambda: index.search(asked, case.k),
            repeats=3,
        )
    times = [1000 * each / BATCH for each in seconds]
    return Row(
        f"{len(index):,} codes, {case.what}, a batch of {BATCH} on {threads} thread{'s' * (threads > 1)}, per query",
        f"faiss scan {times[0]:.2f} ms",
        f"{times[0] / times[1]:.1f} times faster: {times[1]:.3f} ms",
        "10 times",
        times[0] >= 10 * times[1],
    )


def _approximate(items: int, make: Callable[[int], Codes]) -> list[Row]:
    """Recall of the true ten, speed and size of faiss's binary indexes."""
    codes, queries = make(items), make(100)
    index = indexed(codes)
    started = time.thread_time()
    index.search(queries[:1], K, method="tables")
    built = time.thread_time() - started
    true = [row[-1] for row in index.search(queries, K, method="scan").distances]

    def timed(what: str, search: Callable[[Codes], NDArray[np.int32]], seconds: float, extra: int) -> Row:
        times, within = [], 0
        for n in range(len(queries)):
            started = time.thread_time()
            distances = search(queries[n : n + 1])
            times.append(1000 * (time.thread_time() - started))
            within += int((distances <= true[n]).sum())  # any of the tied ones
        recall, ms = within / (K * len(queries)), statistics.median(times)
        return Row(
            f"{items:,} codes, {what}",
            "exact search",
            f"recall@10 {recall:.3f}, {ms:.3f} ms, built in {seconds:.1f} s, {extra / items:.0f} bytes per code",
            "",
            True,
        )

    rows = [timed("ours", lambda q: index.search(q, K).distances[0], built, 8 * items + index.tables_bytes)]
    for what, (key, parameters) in _FAISS.items():
        engine = faiss.index_binary_factory(BITS, key)
        for name, value in parameters.items():
            setattr(engine, name, value)
        started = time.thread_time()
        if not engine.is_trained:
            engine.train(codes[:100_000])
        engine.add(codes)
        seconds = time.thread_time() - started
        size = faiss.serialize_index_binary(engine).nbytes
        rows.append(timed(what, lambda q, engine=engine: engine.search(q, K)[0][0], seconds, size))  # type: ignore[misc]
    return rows


_FAISS: dict[str, tuple[str, dict[str, int]]] = {
    "IndexBinaryMultiHash, 4 x 16 bits, 1 flip": ("BHash4x16", {"nflip": 1}),
    "IndexBinaryHash, 16 bits, 2 flips": ("BHash16", {"nflip": 2}),
    "IndexBinaryIVF, 1,024 lists, 16 probed": ("BIVF1024", {"nprobe": 16}),
    "IndexBinaryHNSW, 16 links": ("BHNSW16", {}),
}
"""{description: (key of the index factory, parameters)}"""


def uniform(rng: np.random.Generator, num: int) -> Codes:
    return rng.integers(0, 256, (num, BITS // 8), dtype=np.uint8)


def _half(rng: np.random.Generator, constant: slice, num: int) -> Codes:
    codes = uniform(rng, num)
    codes[:, constant] = 90
    return codes


def flipped(rng: np.random.Generator, centers: Codes, rate: float, num: int) -> Codes:
    codes = centers[rng.integers(len(centers), size=num)]
    for start in range(0, num, _BLOCK) if rate else ():
        block = codes[start : start + _BLOCK]
        block ^= np.packbits(rng.random((len(block), BITS), np.float32) < rate, axis=1)
    return codes
