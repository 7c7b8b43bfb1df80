"""Standard output on any console: what its encoding lacks is told by its code."""

import codecs
import sys
from io import TextIOWrapper

_HANDLER = "nestkala.escape"


def escape_what_stdout_lacks() -> None:
    r"""Let no text fail to be printed, as none does on stderr: what the encoding lacks is written as \xe9 or \u732b.

    A file's name that is no text is printed as it is.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error(_HANDLER, _escaped)
        sys.stdout.reconfigure(errors=_HANDLER)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)
