"""Turns pydantic's validation errors into text."""

import reprlib
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import nearest

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 120


def in_words(error: ValidationError, known: Iterable[str]) -> str:
    """All errors on one line, with the nearest of the `known` keys for an unknown one."""
    known = list(known)
    return "; ".join(_sentence(detail, known) for detail in error.errors(include_url=False))


def first_in_words(error: ValidationError) -> str:
    """The first error, since a damaged file may be wrong in every entry."""
    return _sentence(error.errors(include_url=False)[0], [])


def _sentence(detail: ErrorDetails, known: list[str]) -> str:
    key, given = ".".join(map(str, detail["loc"])), _shortened.repr(detail["input"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{key}'{nearest(key, known)}" if known else f"unknown key '{key}': {given}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "json_invalid":
        return detail["msg"]
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return f"{key} {detail['msg'].removeprefix('Input ')}, not {given}".lstrip()
