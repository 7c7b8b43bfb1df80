"""Versions of file formats: a file of another version is rejected, with advice."""

from .errors import NestKALAError

_LONGEST = 10
"""Maximum number of digits; Python refuses to read very many."""


def check_version(where: str, found: object, known: int, anew: str | None = None) -> None:
    """Reject a file of another version.

    Args:
        where: name of the file in errors.
        found: version found in the file, a number or its digits; None if there is none.
        known: the supported version.
        anew: command that creates a file of an earlier version again; None if there was no earlier version.

    Raises:
        NestKALAError: if it has another version; says which, and what to do.
    """
    said = str(found)
    if said == str(known):
        return
    number = int(said) if said.isdecimal() and len(said) < _LONGEST else None
    if number is not None and number > known:
        way_on = "it was written by a newer NestKALA: upgrade yours"
    elif number is not None and anew is not None:
        way_on = anew
    else:
        way_on = "there is no such version, so the file is damaged"
    raise NestKALAError(f"{where} has version {said[:40]}, expected {known}: {way_on}")
