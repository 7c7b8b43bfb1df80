"""Which class names can be put into sentences, files and pages."""

import unicodedata
from collections.abc import Iterable

from ..utils.errors import NestKALAError

MAX_LETTERS = 1000


def one_form(name: str) -> str:
    """A class name in Unicode's form NFC: what macOS and Linux write in different letters for the same name is one."""
    return unicodedata.normalize("NFC", name)


def check_class_names(names: Iterable[str], where: str) -> None:
    """Raise NestKALAError, which says `where`, for a name that is no text in UTF-8, or has more than `MAX_LETTERS`."""
    for name in names:
        if len(name) > MAX_LETTERS:
            raise NestKALAError(
                f"{where} has a class name of {len(name)} letters, '{name[:20]}...': {MAX_LETTERS} at most are taken"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise NestKALAError(f"{where} has the class name {name!r}, which is no text in UTF-8")
