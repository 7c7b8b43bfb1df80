"""Standard output on any console: characters that its encoding lacks are escaped."""

import codecs
import os
import sys
from io import TextIOWrapper
from pathlib import Path

_HANDLER = "nestkala.escape"


def escape_what_stdout_lacks() -> None:
    r"""Make printing always succeed, as on stderr: characters that the encoding lacks are written as \xe9 or \u732b.

    File names that are not valid text are printed as they are.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error(_HANDLER, _escaped)
        sys.stdout.reconfigure(errors=_HANDLER)


def linked(text: str, file: Path | None) -> str:
    """Text that opens a file on a click if standard output is a terminal, otherwise the text alone.

    Uses OSC 8 (https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda). If NO_COLOR is set, or TERM is
    "dumb", the text is unchanged (https://no-color.org).
    """
    plain = file is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if file is None or plain else f"\x1b]8;;{file.absolute().as_uri()}\x1b\\{text}\x1b]8;;\x1b\\"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
