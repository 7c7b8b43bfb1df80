"""Standard output on any console: what its encoding lacks is told by its code."""

import codecs
import os
import sys
from io import TextIOWrapper
from pathlib import Path

_HANDLER = "nestkala.escape"


def escape_what_stdout_lacks() -> None:
    r"""Let no text fail to be printed, as none does on stderr: what the encoding lacks is written as \xe9 or \u732b.

    A file's name that is no text is printed as it is.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error(_HANDLER, _escaped)
        sys.stdout.reconfigure(errors=_HANDLER)


def linked(text: str, file: Path | None) -> str:
    """Text that opens a file on a click, where standard output is a terminal; else the text alone.

    By OSC 8 (https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda). The environment's NO_COLOR, or TERM
    "dumb", leaves text as it is (https://no-color.org).
    """
    plain = file is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if file is None or plain else f"\x1b]8;;{file.absolute().as_uri()}\x1b\\{text}\x1b]8;;\x1b\\"


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
