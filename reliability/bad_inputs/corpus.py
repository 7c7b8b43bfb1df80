"""All inputs, run in one process."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..finding import Finding
from . import (
    arguments,
    caches,
    checkpoints,
    class_folders,
    features,
    images,
    indexes,
    lists,
    run_folders,
    settings,
    shards,
)
from .case import Case, complaint
from .good import make_good

_FAMILIES = (
    arguments,
    images,
    lists,
    class_folders,
    features,
    settings,
    run_folders,
    checkpoints,
    indexes,
    shards,
    caches,
)
CASES: list[Case] = [case for family in _FAMILIES for case in family.CASES]


def run() -> list[Finding]:
    """Run every input in one separate process, so that a crash is noticed too."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "reliability.bad_inputs.corpus", folder], stdout=subprocess.PIPE, text=True
        )
    complaints: dict[str, str] = dict(json.loads(line) for line in done.stdout.splitlines())
    failed = {case.name: found for case in CASES if (found := complaints.get(case.name, "never came to an end"))}
    clear = "exit code 2, one line that names the culprit, nothing else changed"
    return [
        _finding("bad inputs rejected", clear, {case.name for case in CASES if case.is_right is None}, failed),
        _finding(
            "odd inputs accepted",
            "the right result, checked another way",
            {case.name for case in CASES if case.is_right},
            failed,
        ),
    ]


def _finding(what: str, promised: str, names: set[str], failed: dict[str, str]) -> Finding:
    wrong = {name: complaint for name, complaint in failed.items() if name in names}
    return Finding(what, f"{len(names) - len(wrong)} of {len(names)}", promised, not wrong, {"failed": wrong})


def _meet_all(folder: Path) -> None:
    """Print a line of JSON, name and complaint, for each case."""
    os.environ["NESTKALA_CACHE"] = str(folder / "tokens")
    good = make_good(folder / "good")
    for number, case in enumerate(CASES):
        here = folder / str(number)
        here.mkdir()
        os.chdir(here)
        print(json.dumps([case.name, complaint(case, good, here)]), flush=True)


if __name__ == "__main__":
    _meet_all(Path(sys.argv[1]))
