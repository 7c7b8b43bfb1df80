"""Patterns of files to leave out, in .gitignore's syntax."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec, PathSpec

from ..utils.errors import NestKALAError, one_line

IGNORE_FILE = ".nestkalaignore"
"""A file of patterns in the folder that they apply to."""


class Excludes:
    """Which files and subfolders of a folder are left out.

    Args:
        patterns: in .gitignore's syntax (https://git-scm.com/docs/gitignore), relative to the folder. A later pattern
            overrides an earlier one.

    Raises:
        NestKALAError: a pattern that git would not take.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        lines = list(patterns)
        try:
            self._files = GitIgnoreSpec.from_lines(lines)
            # In which a later pattern for folders alone overrides an earlier one for all, as in "*" and "!*/".
            self._folders = PathSpec.from_lines("gitignore", lines)
        except ValueError:
            raise NestKALAError(f"not a pattern of .gitignore's syntax: {_first_invalid(lines)!r}") from None

    @classmethod
    def of(cls, folder: Path, patterns: Iterable[str] = ()) -> "Excludes":
        """What `folder/.nestkalaignore` lists, and these patterns.

        Raises:
            NestKALAError: the file cannot be read, or has an invalid pattern.
        """
        file = folder / IGNORE_FILE
        try:
            text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else ""
        except OSError as error:
            raise NestKALAError(f"cannot read {file}: {one_line(error)}") from None
        return cls([*text.splitlines(), *patterns])

    def leaves_out(self, name: str, is_folder: bool = False) -> bool:
        """Whether a file, or a folder, of this path is left out; what is in it is left out with it."""
        return self._folders.match_file(f"{name}/") if is_folder else self._files.match_file(name)

    def covers(self, name: str) -> bool:
        """Whether a file is left out, by itself or with a folder that it is in."""
        parents = [str(parent) for parent in PurePosixPath(name).parents][:-1]
        return self.leaves_out(name) or any(self.leaves_out(parent, is_folder=True) for parent in parents)


def _first_invalid(lines: list[str]) -> str:
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            return line
    return lines[0]
