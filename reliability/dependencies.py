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
    return [fitting(), there()]


def fitting() -> Finding:
    """Whether the requirements of the installed packages are satisfied."""
    told = _pip("check")
    conflicts = [] if told.returncode == 0 else told.stdout.splitlines()
    return Finding(
        "conflicts between installed packages",
        f"{len(conflicts)} conflicts",
        "none",
        not conflicts,
        {"conflicts": conflicts},
    )


def there(constraints: Path = CONSTRAINTS) -> Finding:
    """Whether the registry has every pinned version, and none is yanked; takes a minute or two."""
    pins = sum("==" in line for line in constraints.read_text(encoding="utf-8").splitlines())
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        asked = ("--dry-run", "--ignore-installed", "--no-deps", "--report", str(report), "-r", str(constraints))
        told = _pip("install", "--quiet", *asked)
        found = json.loads(report.read_text(encoding="utf-8"))["install"] if told.returncode == 0 else []
    withdrawn = [line for line in told.stderr.splitlines() if "is a yanked version" in line]
    measured = f"{len(found)} of {pins} there, {len(withdrawn)} withdrawn"
    errors = [line for line in told.stderr.splitlines() if line.startswith("ERROR")]
    return Finding(
        "pinned versions in the package registry",
        f"{measured} ({errors[0][:200]})" if errors else measured,
        "all there, none withdrawn",
        len(found) == pins and not withdrawn,
        {"withdrawn": withdrawn, "errors": errors},
    )


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
