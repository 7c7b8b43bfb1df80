"""Errors that a user can fix, and the wording for unknown names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_MOST_COMPARED = 2000
"""Maximum number of names to search for a suggestion, which takes 0.1 s; an index's images may be more."""
_MOST_LISTED = 100
_PASSWORD = re.compile(r"(?<=:/)(/?[^\s/:@]*):[^\s/]*@|(?<=[?&\s]password=)[^\s&]+")
"""In an address, whose slashes `Path` may have joined, before its host or among its options."""


class NestKALAError(ValueError):
    """A mistake in the user's input. The command line prints it on one line and exits with code 2."""


class DivergedError(NestKALAError):
    """Training produced a number that is not finite."""


def one_line(error: BaseException) -> str:
    """An error's message on one line; its type if there is no message."""
    return as_line(" ".join(str(error).split())) or type(error).__name__


def without_passwords(text: str) -> str:
    """A text that may repeat an address such as postgresql://USER:PASSWORD@HOST, without what is secret in it."""
    return _PASSWORD.sub(lambda found: "***" if found[1] is None else f"{found[1]}:***@", text)


def as_line(text: str) -> str:
    """Text, such as a file name, made safe for a terminal: invalid and unprintable characters are escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """«; did you mean 'x'?» for the known name closest in spelling, or an empty string; always empty beyond 2,000."""
    names = list(islice(known, _MOST_COMPARED + 1))
    matches = get_close_matches(name, names, n=1, cutoff=0.5) if len(names) <= _MOST_COMPARED else []
    return f"; did you mean '{matches[0]}'?" if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> NestKALAError:
    """The error for a name not in `known`: gives the name, the nearest valid one, and the (first) known ones."""
    known = sorted(known)
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    listed = f"{', '.join(known[:_MOST_LISTED])}{more}"
    return NestKALAError(f"unknown {kind} '{name}'{nearest(name, known)} (known: {listed})")
