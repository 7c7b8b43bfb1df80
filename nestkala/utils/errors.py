"""Errors that a user can mend, and the wording of «unknown name» ones."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

_MOST_COMPARED = 2000
"""Names, some 0.1 s; where there are more, such as the images of an index, none is suggested."""
_MOST_LISTED = 100
_PASSWORD = re.compile(r"(?<=:/)(/?[^\s/:@]*):[^\s/]*@|(?<=[?&\s]password=)[^\s&]+")
"""In an address, whose slashes `Path` may have joined, before its host or among its options."""


class NestKALAError(ValueError):
    """A mistake in what the user gave. The command line shows it as one line and exits with code 2."""


class DivergedError(NestKALAError):
    """Training came to a number that is not finite."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return as_line(" ".join(str(error).split())) or type(error).__name__


def without_passwords(text: str) -> str:
    """A text that may repeat an address such as postgresql://USER:PASSWORD@HOST, without what is secret in it."""
    return _PASSWORD.sub(lambda found: "***" if found[1] is None else f"{found[1]}:***@", text)


def as_line(text: str) -> str:
    """Text, such as a file's name, for a terminal: what is no text or does not print is told by its code."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """«; did you mean 'x'?» for the known name closest in spelling, or an empty string; always of more than 2,000."""
    names = list(islice(known, _MOST_COMPARED + 1))
    matches = get_close_matches(name, names, n=1, cutoff=0.5) if len(names) <= _MOST_COMPARED else []
    return f"; did you mean '{matches[0]}'?" if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> NestKALAError:
    """The error for a name that is none of `known`: names it, the nearest valid one, and all of them or the first."""
    known = sorted(known)
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    listed = f"{', '.join(known[:_MOST_LISTED])}{more}"
    return NestKALAError(f"unknown {kind} '{name}'{nearest(name, known)} (known: {listed})")
