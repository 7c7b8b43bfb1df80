"""Errors that a user can mend, and the wording of «unknown name» ones."""

from collections.abc import Iterable
from difflib import get_close_matches


class NestKALAError(ValueError):
    """A mistake in what the user gave. The command line shows it as one line and exits with code 2."""


class DivergedError(NestKALAError):
    """Training came to a number that is not finite."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return as_line(" ".join(str(error).split())) or type(error).__name__


def as_line(text: str) -> str:
    """Text, such as a file's name, for a terminal: what is no text or does not print is told by its code."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """«; did you mean 'x'?» for the known name closest in spelling, or an empty string."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{matches[0]}'?" if matches else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> NestKALAError:
    """The error for a name that is none of `known`: names it, the nearest valid one, and all of them."""
    known = sorted(known)
    return NestKALAError(f"unknown {kind} '{name}'{nearest(name, known)} (known: {', '.join(known)})")
