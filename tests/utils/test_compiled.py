"""Compiled functions where nothing can be written, in several threads at once, and after a fork."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import nestkala
from nestkala.utils.compiled import in_threads

SCORING = """
import os, sys, threading
import numpy as np
from nestkala.evaluation import evaluate
from nestkala.index import PrefixIndex

rng = np.random.default_rng(0)
codes, queries = rng.integers(0, 256, (3000, 8), dtype=np.uint8), rng.integers(0, 256, (20, 8), dtype=np.uint8)
labels = rng.random((3000, 5)) < 0.3

def scored():
    scores = evaluate(queries, labels[:20], codes, labels, (4, 64))
    return [(of.average_precision.tolist(), of.counts.counts.tolist()) for of in scores.values()]
"""

WORK = f"""{SCORING}
index = PrefixIndex.build(codes)

def work():
    found = []
    for bits in (4, 11, 40, 64):
        for method in ("auto", "scan", "slices", "tables"):
            for few in (1, 20):
                hits = index.search(queries[:few], 7, bits, shortlist=12, method=method)
                found.append((hits.ids, hits.distances.tolist()))
        found.append(index.search_radius(queries[:3], 2, bits).ids)
    h = np.where(np.unpackbits(queries, axis=1), 0.5, -0.5).astype(np.float32)
    found.append(index.search(queries, 3, 16, rescore=h).distances.tolist())
    return found, scored()
"""

THREADS = f"""{WORK}
alone, together = work(), [None] * 8

def run(number):
    for _ in range(5):
        together[number] = work()

threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert together == [alone] * 8
print("equal")
"""

FORKS = f"""{WORK}
import faulthandler

def forked(function):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(40, exit=True)
        os._exit(0 if function() == alone else 3)
    assert os.waitpid(child, 0)[1] == 0

def in_threads():
    found = [None, None]
    def run(number):
        found[number] = work()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found[0] if found[0] == found[1] else None

alone = work()
forked(work)
forked(in_threads)
busy, stop = threading.Event(), threading.Event()

def keep_busy():
    while not stop.is_set():
        work()
        busy.set()

thread = threading.Thread(target=keep_busy, daemon=True)  # which holds what a child would wait for
thread.start()
busy.wait()
for _ in range(4):
    forked(work)
stop.set()
thread.join()
assert work() == alone
print("equal")
"""

FIRST_USE_IN_CHILDREN = f"""{WORK}
import hashlib
reading, writing = os.pipe()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, hashlib.sha256(repr(work()).encode()).digest())
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert os.read(reading, 64) == 2 * hashlib.sha256(repr(work()).encode()).digest()
print("equal")
"""

READ_ONLY = f"""
import os, sys, warnings
warnings.simplefilter("error", ResourceWarning)
for folder in (os.path.dirname(sys.argv[1]), os.environ["HOME"], "/tmp"):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError:
        continue
    sys.exit(folder + " can be written to")
{WORK}
import nestkala
assert nestkala.__file__ == sys.argv[1]
work()
from nestkala.cli import main
small = ["--queries", "3", "--shots", "2", "--lengths", "4,20", "--epochs", "1", "--workers", "0"]
place = sys.argv[2]
assert main(["train", "--data", "digits", "--output", place + "/run", "--head-init", "random", *small]) == 0
assert main(["advise", place + "/run", "--min-map", "0", "--plot", place + "/advise.png"]) == 0
"""

READ_ONLY_ROOT = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"'


def printed(script: str, *arguments: object, before: Sequence[str] = (), **environment: str) -> list[str]:
    """What a process of its own prints, by lines; it must end well. `before` is the command that starts it."""
    command = [*before, sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "4", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.splitlines()


def test_threads_that_search_and_score_at_once_find_what_one_finds() -> None:
    assert printed(THREADS) == ["equal"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_forked_after_a_search_finds_the_same() -> None:
    assert printed(FORKS) == ["equal"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_processes_that_are_forked_before_the_first_search_find_the_same() -> None:
    assert printed(FIRST_USE_IN_CHILDREN) == ["equal"]


def test_threads_share_all_of_the_work_at_the_same_time() -> None:
    together, parts = threading.Barrier(3), []

    def work(first: int, last: int) -> None:
        together.wait(60)
        parts.append(range(first, last))

    in_threads(work, 10, threads=3)
    assert sorted(place for part in parts for place in part) == list(range(10))


@pytest.mark.parametrize(("number", "at_least", "expected"), [(0, 1, 1), (1, 1, 1), (7, 4, 1), (8, 4, 2), (99, 4, 3)])
def test_little_work_takes_few_threads(number: int, at_least: int, expected: int) -> None:
    parts: list[tuple[int, int]] = []
    in_threads(lambda first, last: parts.append((first, last)), number, at_least=at_least, threads=3)
    assert len(parts) == expected


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda first, _: 1 // first, 4, threads=2)


@pytest.fixture
def installation() -> Iterator[Path]:
    """A copy of the package in a folder that all may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(Path(nestkala.__file__).parent, Path(folder, "nestkala"), ignore=_compiled)
        yield Path(folder)


def _compiled(_: str, names: list[str]) -> set[str]:
    return {name for name in names if name in ("__pycache__", "pretrained")}


@pytest.mark.slow
def test_nothing_needs_to_be_written_but_results() -> None:
    """As `docker run --read-only`: neither installation nor home nor /tmp can be written to."""
    before = ["unshare", "--mount", "sh", "-c", READ_ONLY_ROOT, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("a file system that may only be read cannot be made here: that takes a superuser")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        unset = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": "", "NESTKALA_CACHE": "", "TMPDIR": "", "MPLCONFIGDIR": ""}
        said = printed(READ_ONLY, nestkala.__file__, place, before=before, HOME=str(Path.home()), **unset)
        assert f"run folder: {place}/run" in said
        assert Path(place, "advise.png").is_file()


def test_where_no_machine_code_can_be_kept_the_scores_are_the_same(installation: Path, tmp_path: Path) -> None:
    """Files in place of the folders that numba tries, since a superuser may write to any folder."""
    for folder in (tmp_path, *(found for found in installation.rglob("*") if found.is_dir())):
        (folder / "__pycache__").touch()
    nowhere = str(tmp_path / "__pycache__" / "kept")
    script = f"{SCORING}\nprint(scored())"
    environment = {"PYTHONPATH": str(installation), "PYTHONSAFEPATH": "1", "XDG_CACHE_HOME": nowhere}
    found = printed(script, **environment, NUMBA_CACHE_DIR=nowhere)
    assert not list(installation.rglob("*.nb?"))
    assert printed(script, **environment, NUMBA_CACHE_DIR=str(tmp_path / "kept")) == found
    assert list(tmp_path.rglob("*.nb?"))


@pytest.mark.slow
def test_code_that_cannot_be_kept_or_read_is_compiled_anew(installation: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(installation), "PYTHONSAFEPATH": "1", "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    hashing = "of = Strings.of(['', 'a']); print(fnv1a(of.text, of.ends).tolist())"
    script = f"from nestkala.index.strings import Strings, fnv1a; {hashing}"
    (expected,) = printed(script, **environment)
    assert expected == str([0xCBF29CE484222325, 0xAF63DC4C8601EC8C])  # as Fowler, Noll and Vo give them
    kept = sorted((tmp_path / "kept").rglob("*.nb?"))
    assert kept
    for place in (0, -1):  # as a crash or a full disk leaves them
        for path in kept:
            path.write_bytes(path.read_bytes()[:place])
        (found,) = printed(script, **environment)
        assert found == expected
