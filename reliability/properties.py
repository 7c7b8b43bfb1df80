"""The property tests of tests/, for any lengths, shapes, labels and numbers, with many examples each."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .finding import Finding

TESTS = Path(__file__).parents[1] / "tests"
_EXAMPLES = re.compile(r"- (\d+) passing, (\d+) failing")


def run(profile: str = "thorough", tests: Sequence[Path] | None = None) -> list[Finding]:
    """Run them with pytest; one finding per file.

    Args:
        profile: profile in tests/conftest.py, which sets the number of examples.
        tests: test files; all test_properties_*.py by default.
    """
    files = sorted(TESTS.rglob("test_properties_*.py"), key=lambda path: path.name) if tests is None else tests
    return [_of_file(path, profile) for path in files]


def _of_file(path: Path, profile: str) -> Finding:
    flags = "-q", "-n0", "-m", "slow or not slow", f"--hypothesis-profile={profile}", "--hypothesis-show-statistics"
    command = [sys.executable, "-m", "pytest", *flags, str(path)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    properties = len(re.findall(r"^\S+::.*:$", done.stdout, re.MULTILINE))
    passing, failing = (
        sum(map(int, column)) for column in zip(("0", "0"), *_EXAMPLES.findall(done.stdout), strict=True)
    )
    return Finding(
        what=f"properties of {path.stem.removeprefix('test_properties_')}",
        measured=f"{properties} properties, {passing + failing:,} examples, {failing} failing",
        promised="a finite result or a clear error, for every example",
        held=done.returncode == 0 and properties > 0,
        details={
            "properties": properties,
            "examples": passing + failing,
            "failed": re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE),
            "pytest": done.stdout.strip().split("\n")[-1],
        },
    )
