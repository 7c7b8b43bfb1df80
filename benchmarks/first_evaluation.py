"""The first evaluation and the first search in a process, with and without cached machine code.

Times are processor seconds, which other work on the machine affects less than wall time; compiling uses one thread.
"""

import os
import statistics
import subprocess
import sys
import tempfile

from .comparison import Row

REPEATS = 3
DRAWN = """
import sys, time
import numpy as np
from nestkala.evaluation import evaluate
from nestkala.index import PrefixIndex
rng = np.random.default_rng(0)
codes, queries = rng.integers(0, 256, (20_000, 8), dtype=np.uint8), rng.integers(0, 256, (20, 8), dtype=np.uint8)
labels = rng.random((20_000, 10)) < 0.3
started = time.process_time()
"""
CALLS = {
    "evaluation": ("evaluate(queries, labels[:20], codes, labels, (4, 8, 16, 32, 64))", 1.0),
    "search, indexing included": ("PrefixIndex.build(codes).search(queries, 10)", None),
}
"""{what: the call, and the seconds that it may take longer without cached machine code}"""


def run() -> list[Row]:
    """Each in new processes in turn: nothing cached, as where no file can be written, then cached by the first."""
    rows = []
    for what, (call, most) in CALLS.items():
        times = []
        for _ in range(REPEATS):
            with tempfile.TemporaryDirectory() as cache:
                times.append((_seconds(call, cache), _seconds(call, cache)))
        cold, warm = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(first / second for first, second in times)
        longer = statistics.median(first - second for first, second in times)
        rows.append(
            Row(
                f"first {what}, 20 queries, 20,000 codes of 64 bits, in a new process without cached machine code",
                "with cached machine code",
                f"{ratio:.1f} times as long: {cold:.2f} s, {warm:.2f} s of the processor",
                f"at most {most:.0f} s longer" if most else "",
                most is None or longer < most,
                {"cold_s": [first for first, _ in times], "warm_s": [second for _, second in times]},
            )
        )
    return rows


def _seconds(call: str, cache: str) -> float:
    """Processor seconds of the first call in a process of its own."""
    script = f"{DRAWN}{call}\nprint(time.process_time() - started)"
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)
