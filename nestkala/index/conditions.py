"""Conditions on the items of an index that narrow a search, such as "folder=2019/italy" or "date>=2024-05"."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..utils.errors import NestKALAError, nearest

_MOST_LISTED = 20
_OPERATOR = re.compile("<=|>=|!=|=|<|>")
_MOST_SHOWN = 100
"""Characters of a text that an error repeats."""
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """A condition on an item's id or metadata.

    Two keys are special. `folder` is the folder of the id, which is a path; the condition holds in that folder and
    everywhere below it. `date` compares as many characters as the value has, so `date<=2024-05` includes all of May.
    Any other key compares the metadata of that name: as numbers if both sides are numbers, otherwise as text. A list
    satisfies `=` if one of its entries does. For an item without the key, only `!=` holds.

    Attributes:
        key: metadata key, or "folder".
        operator: "=", "!=", "<", "<=", ">" or ">=".
        value: value to compare with.
    """

    key: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a condition like "key>=value".

        Raises:
            NestKALAError: the text has another form, or orders folders.
        """
        shown = repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
        match = _OPERATOR.search(text)
        key = "" if match is None else text[: match.start()].strip()
        if match is None or not key or "!" in key:
            raise NestKALAError(f"a condition must look like folder=2019, date>=2024-05 or camera=Pixel, not {shown}")
        sign, value = match.group(), text[match.end() :].strip()
        if key == "folder" and sign not in ("=", "!="):
            raise NestKALAError(f"folders can be compared only with = and !=, not with {sign} as in {shown}")
        return cls(key, sign, value.strip("/") if key == "folder" else value)

    def holds(self, name: str, metadata: Mapping[str, Any]) -> bool:
        """Whether an item with this id and metadata satisfies the condition."""
        if self.key == "folder":
            inside = not self.value or name.startswith(f"{self.value}/")
            return inside == (self.operator == "=")
        if metadata.get(self.key) is None:
            return self.operator == "!="
        found = metadata[self.key]
        entries = found if isinstance(found, list) else [found]
        if self.operator == "!=":
            return not any(self._compared(operator.eq, entry) for entry in entries)
        return any(self._compared(_COMPARE[self.operator], entry) for entry in entries)

    def _compared(self, compare: Callable[[Any, Any], bool], found: Any) -> bool:
        text = str(found).lower() if isinstance(found, bool) else str(found)
        if self.key == "date":
            return compare(text[: len(self.value)], self.value)
        try:
            return compare(float(text), float(self.value))
        except ValueError:
            return compare(text, self.value)


def parse_conditions(texts: Iterable[str]) -> list[Condition]:
    """Parse conditions, as for `Condition.parse`; all of them must hold."""
    return [Condition.parse(text) for text in ([texts] if isinstance(texts, str) else texts)]


def items_that_satisfy(
    items: Iterable[tuple[str, Mapping[str, Any]]], conditions: Sequence[Condition]
) -> tuple[list[int], set[str]]:
    """The positions of the items (id, metadata) that satisfy all conditions, and all keys that occur."""
    places, keys = [], set[str]()
    for place, (name, metadata) in enumerate(items):
        keys.update(metadata)
        if all(condition.holds(name, metadata) for condition in conditions):
            places.append(place)
    return places, keys


def check_keys(conditions: Sequence[Condition], keys: Iterable[str]) -> None:
    """Raise NestKALAError for a condition on a key that no item has; `keys` are all that occur."""
    known = {"folder", *keys}
    for condition in conditions:
        if condition.key not in known:
            listed = ", ".join(sorted(known)[:_MOST_LISTED])
            suggestion = nearest(condition.key, known)
            raise NestKALAError(f"no item has the key {condition.key!r}{suggestion} (keys: {listed})")
