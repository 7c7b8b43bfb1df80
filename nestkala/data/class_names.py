"""Checks of class names for use in sentences, files and pages."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ..utils.errors import NestKALAError

MAX_LETTERS = 1000
_GENERAL = "class|label|category|kind|type|group|cluster|folder|new folder|untitled|unnamed|set|id|item|object|images?"
_SAYS_NOTHING = re.compile(
    rf"(?:{_GENERAL})?[\s_.#-]*[0-9]*|[a-z]|n[0-9]{{8}}|[0-9a-f]{{12,}}|(?:imgs?|dscn?|images?|pics?)[_-].*",
    re.IGNORECASE,
)
_NAMED = 5


def one_form(name: str) -> str:
    """A class name in Unicode form NFC, since macOS and Linux encode the same name differently."""
    return unicodedata.normalize("NFC", name)


def check_class_names(names: Iterable[str], where: str) -> None:
    """Raise NestKALAError, with `where`, for a name that is not UTF-8 or has more than `MAX_LETTERS` characters."""
    for name in names:
        if len(name) > MAX_LETTERS:
            raise NestKALAError(
                f"{where} has a class name of {len(name)} characters, '{name[:20]}...': at most {MAX_LETTERS} allowed"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise NestKALAError(f"{where} has the class name {name!r}, which is not valid UTF-8")


def says_nothing(name: str) -> bool:
    """Whether a class name means nothing to a text tower: `class1`, `7`, `IMG_cars`, `n01440764`."""
    return _SAYS_NOTHING.fullmatch(name.strip()) is not None


def names_in_doubt(names: Sequence[str]) -> list[str]:
    """A one-line warning if class names do not say what images show; otherwise empty."""
    empty = [name for name in names if says_nothing(name)]
    if not empty:
        return []
    more = ", ..." if len(empty) > _NAMED else ""
    return [
        f"warning: {len(empty)} of {len(names)} class names mean nothing to a text tower "
        f"({', '.join(map(repr, empty[:_NAMED]))}{more}): name classes by what they show, or give the words for "
        "prompts with --class-words"
    ]
