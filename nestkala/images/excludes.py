"""Patterns of files to skip, in .gitignore syntax."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec, PathSpec

from ..utils.errors import NestKALAError, one_line

IGNORE_FILE = ".nestkalaignore"
"""File of patterns for the folder it is in."""


class Excludes:
    """Files and subfolders of a folder to skip.

    Args:
        patterns: patterns in .gitignore syntax (https://git-scm.com/docs/gitignore), relative to the folder. Later
            patterns override earlier ones.

    Raises:
        NestKALAError: a pattern is invalid.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        lines = list(patterns)
        try:
            self._files = GitIgnoreSpec.from_lines(lines)
            # Here, a later pattern only for folders overrides an earlier general one, as in "*" and "!*/".
            self._folders = PathSpec.from_lines("gitignore", lines)
        except ValueError:
            raise NestKALAError(f"not a valid pattern in .gitignore syntax: {_first_invalid(lines)!r}") from None

    @classmethod
    def of(cls, folder: Path, patterns: Iterable[str] = ()) -> "Excludes":
        """The patterns in `folder/.nestkalaignore`, followed by these.

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
        """Whether the file or folder with this path is skipped; a skipped folder takes its contents with it."""
        return self._folders.match_file(f"{name}/") if is_folder else self._files.match_file(name)

    def covers(self, name: str) -> bool:
        """Whether a file is skipped, by itself or together with a folder that contains it."""
        parents = [str(parent) for parent in PurePosixPath(name).parents][:-1]
        return self.leaves_out(name) or any(self.leaves_out(parent, is_folder=True) for parent in parents)


def _first_invalid(lines: list[str]) -> str:
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            return line
    return lines[0]
