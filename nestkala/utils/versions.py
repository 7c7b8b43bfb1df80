"""Files carry the version of their format; one of another version is refused with a way on."""

from .errors import NestKALAError

_LONGEST = 10
"""Digits; Python refuses to read very many."""


def check_version(where: str, found: object, known: int, anew: str | None = None) -> None:
    """Refuse a file of another version.

    Args:
        where: the file, as errors call it.
        found: what it gives as its version, a number or its digits; None for a file that gives none.
        known: the version that is read.
        anew: the command that makes a file of an earlier version anew; None where there was no earlier one.

    Raises:
        NestKALAError: it is of another version; says which, and what to do.
    """
    said = str(found)
    if said == str(known):
        return
    number = int(said) if said.isdecimal() and len(said) < _LONGEST else None
    if number is not None and number > known:
        way_on = "a newer NestKALA wrote it, so upgrade yours"
    elif number is not None and anew is not None:
        way_on = anew
    else:
        way_on = "there never was such a version, so it is damaged"
    raise NestKALAError(f"{where} is of version {said[:40]}, known is {known}: {way_on}")
