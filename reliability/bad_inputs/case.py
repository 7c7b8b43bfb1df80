"""A bad, or just odd, input, with a command and its expected outcome."""

import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path

from nestkala.cli import main
from nestkala.utils.files import is_unfinished

from .good import Good, Make

Look = Callable[[Path, Good, str], bool]
OUTPUT = "out"
"""Prefix of the paths that commands may write to: everything else must stay unchanged."""


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        name: description.
        make: writes it into an empty folder, and returns a command line that uses it.
        culprit: for an input that must be refused, what the error line must name.
        is_right: for an odd but good input, whether the outcome is right, given the folder and the output.
        is_slow: whether it takes seconds.
    """

    name: str
    make: Make
    culprit: str = ""
    is_right: Look | None = None
    is_slow: bool = False


def refused(name: str, make: Make, culprit: str) -> Case:
    """A bad input."""
    return Case(name, make, culprit=culprit)


def accepted(name: str, make: Make, is_right: Look, is_slow: bool = False) -> Case:
    """An odd input that is good."""
    return Case(name, make, is_right=is_right, is_slow=is_slow)


def complaint(case: Case, good: Good, here: Path) -> str:
    """What is wrong with the command's reaction to a case; an empty string if nothing is.

    Args:
        case: the case to try.
        good: inputs that it may use, which must stay unchanged.
        here: an empty folder.
    """
    command = [str(word) for word in case.make(here, good)]
    before = _contents(here) | _contents(good.folder)
    out, err = StringIO(), StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(command)
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 1
    except Exception:
        return f"a traceback: {traceback.format_exc(limit=-2)}"
    after = _contents(here) | _contents(good.folder)
    if lost := _difference(before, after):
        return f"not left as it was: {lost}"
    if case.is_right is None:
        return _no_clear_line(code, err.getvalue(), case.culprit)
    if code != 0:
        return f"exit code {code}: {err.getvalue()[-500:]}"
    return "" if case.is_right(here, good, out.getvalue()) else f"the wrong result: {out.getvalue()[-500:]}"


def _no_clear_line(code: int, said: str, culprit: str) -> str:
    if code != 2:
        return f"exit code {code}, not 2: {said[-500:]}"
    last = said.replace("\r", "\n").rstrip("\n").split("\n")[-1]  # progress bars come first
    if "Traceback" in said or said.count("error: ") != 1 or not last.startswith("error: "):
        return f"not one line: {said[-500:]}"
    return "" if culprit in last and last.isprintable() else f"{last!r} does not name {culprit!r}"


def _difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What was added, removed or changed outside of the permitted paths, or left unfinished there."""
    for path in sorted(before.keys() | after.keys()):
        parts = Path(path).parts
        is_output = any(part.startswith(OUTPUT) for part in parts)
        unfinished = any(map(is_unfinished, (Path(path), *Path(path).parents)))
        if before.get(path) != after.get(path) and (unfinished or not is_output):
            return path
    return ""


def _contents(folder: Path) -> dict[str, str]:
    """{path: description} for everything below a folder; links are not followed, pipes and devices not opened."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if path.is_symlink():
                found[str(path)] = f"link to {path.readlink()}"
            elif path.is_file():
                found[str(path)] = sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder or pipe"
    return found
