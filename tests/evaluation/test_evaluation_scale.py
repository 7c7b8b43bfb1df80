"""The evaluation of a gallery larger than the memory it may take, and with queries shared among processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nestkala.codes import hamming, pack
from nestkala.evaluation import evaluate
from reliability.launching import Launch

NUM_ITEMS, NUM_QUERIES, NUM_CLASSES, LENGTHS = 20_000_000, 8, 4, (8, 64)

FROM_DISK = """
import json, sys, threading
from pathlib import Path
import numpy as np
from nestkala.evaluation import evaluate

def megabytes():  # that belong to this process alone, which the pages of mapped files do not
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1000

folder, lengths = Path(sys.argv[1]), json.loads(sys.argv[2])
codes, labels = (np.load(folder / name, mmap_mode="r") for name in ("codes.npy", "labels.npy"))
queries, query_labels = np.load(folder / "queries.npy"), np.load(folder / "query_labels.npy")
evaluate(queries, query_labels, codes[:1000], labels[:1000], lengths)  # compiles
before, most, done = megabytes(), 0.0, threading.Event()

def watch():
    global most
    while not done.wait(0.005):
        most = max(most, megabytes())

watcher = threading.Thread(target=watch)
watcher.start()
found = evaluate(queries, query_labels, codes, labels, lengths)
done.set()
watcher.join()
print(json.dumps({
    "megabytes": most - before,
    "counts": [found[bits].counts.counts.tolist() for bits in lengths],
    "ap": [found[bits].average_precision.tolist() for bits in lengths],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_twenty_million_codes_on_disk_take_little_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (1000, 8), np.uint8)  # few codes, so that counting them is quick here, too
    numbers = rng.integers(1000, size=NUM_ITEMS, dtype=np.int16)
    classes = rng.integers(NUM_CLASSES, size=NUM_ITEMS, dtype=np.int8)
    query_classes = np.arange(NUM_QUERIES) % NUM_CLASSES
    np.save(tmp_path / "codes.npy", patterns[numbers])
    np.save(tmp_path / "labels.npy", np.eye(NUM_CLASSES, dtype=bool)[classes])
    np.save(tmp_path / "queries.npy", patterns[:NUM_QUERIES])
    np.save(tmp_path / "query_labels.npy", np.eye(NUM_CLASSES, dtype=bool)[query_classes])

    command = [sys.executable, "-c", FROM_DISK, str(tmp_path), json.dumps(LENGTHS)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert found["megabytes"] < 50  # the files have 240; distances of all items to one query alone would take 20

    tally = np.bincount(numbers.astype(int) * NUM_CLASSES + classes, minlength=1000 * NUM_CLASSES)
    tally = tally.reshape(1000, NUM_CLASSES)  # items by code and class
    for k, bits in enumerate(LENGTHS):
        distances = hamming(patterns[:NUM_QUERIES], patterns, bits)
        for q, distance in enumerate(distances):
            relevant = np.bincount(distance, tally[:, query_classes[q]], minlength=bits + 1)
            total = np.bincount(distance, tally.sum(axis=1), minlength=bits + 1)
            assert found["counts"][k][q] == np.stack([total - relevant, relevant], axis=1).tolist()
        order = np.argsort(distances[0].astype(np.uint8)[numbers], kind="stable")
        hits = classes[order] == query_classes[0]
        precisions = hits.cumsum()[hits] / (np.flatnonzero(hits) + 1)
        assert found["ap"][k][0] == pytest.approx(precisions.mean(), rel=1e-9)


SHARED = """
import sys
import numpy as np
from accelerate import Accelerator
from nestkala.evaluation import evaluate

accelerator = Accelerator(cpu=True)
given = np.load(sys.argv[1])
found = evaluate(**given, lengths=(3, 16), top_k=50, accelerator=accelerator)
scores = [x for bits in (3, 16) for x in (found[bits].average_precision, found[bits].tie_aware_average_precision)]
np.save(f"{sys.argv[2]}{accelerator.process_index}.npy", np.stack(scores))
accelerator.end_training()
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_queries", [1, 7])
def test_two_processes_find_what_one_does(num_queries: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    given = {
        "q_codes": pack(rng.normal(size=(num_queries, 16))),
        "q_labels": rng.random((num_queries, 5)) < 0.4,
        "g_codes": pack(rng.normal(size=(300, 16))),
        "g_labels": rng.random((300, 5)) < 0.4,
    }
    np.savez(tmp_path / "given.npz", **given)
    (tmp_path / "shared.py").write_text(SHARED)
    arguments = tmp_path / "shared.py", tmp_path / "given.npz", tmp_path / "found"
    with Launch(2, *arguments, folder=tmp_path / "log") as launch:
        launch.done()
    alone = evaluate(**given, lengths=(3, 16), top_k=50)
    for process in range(2):
        shared = np.load(tmp_path / f"found{process}.npy")
        for k, bits in enumerate((3, 16)):
            np.testing.assert_array_equal(shared[2 * k], alone[bits].average_precision)
            np.testing.assert_array_equal(shared[2 * k + 1], alone[bits].tie_aware_average_precision)
