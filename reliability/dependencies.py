"""Checks the versions in constraints.txt against the package registry, and the installed packages for conflicts."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from .finding import Finding

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def run() -> list[Finding]:
    """Ask pip. Known vulnerabilities are not checked; use `pip-audit -r constraints.txt` for these."""
    return [conflicts(), available()]


def conflicts() -> Finding:
    """Whether the requirements of the installed packages are satisfied."""
    done = _pip("check")
    found = [] if done.returncode == 0 else done.stdout.splitlines()
    return Finding(
        "conflicts between installed packages",
        f"{len(found)} conflicts",
        "none",
        not found,
        {"conflicts": found},
    )


def available(constraints: Path = CONSTRAINTS) -> Finding:
    """Whether the registry has every pinned version, and none is yanked; takes a minute or two."""
    pins = sum("==" in line for line in constraints.read_text(encoding="utf-8").splitlines())
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        asked = ("--dry-run", "--ignore-installed", "--no-deps", "--report", str(report), "-r", str(constraints))
        done = _pip("install", "--quiet", *asked)
        found = json.loads(report.read_text(encoding="utf-8"))["install"] if done.returncode == 0 else []
    yanked = [line for line in done.stderr.splitlines() if "is a yanked version" in line]
    measured = f"{len(found)} of {pins} available, {len(yanked)} yanked"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return Finding(
        "pinned versions in the package registry",
        f"{measured} ({errors[0][:200]})" if errors else measured,
        "all available, none yanked",
        len(found) == pins and not yanked,
        {"yanked": yanked, "errors": errors},
    )


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
