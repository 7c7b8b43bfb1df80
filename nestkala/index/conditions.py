"""Conditions on an index's items, such as "folder=2019/italy" or "date>=2024-05", which narrow a search."""

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
    """What an item's id or metadata must satisfy.

    Two keys are special. `folder` is that of the id, a path: the condition holds in the folder and everywhere below.
    `date` compares as many characters as the value has, so `date<=2024-05` includes all of May. Any other key compares
    metadata of that name: as numbers where both sides are numbers, as text otherwise; a list satisfies `=` where one of
    its entries does. Only `!=` holds for an item without the key.

    Attributes:
        key: of the metadata, or "folder".
        operator: "=", "!=", "<", "<=", ">" or ">=".
        value: what it is compared with.
    """

    key: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """The condition that a text like "key>=value" states.

        Raises:
            NestKALAError: it is of another form, or orders folders.
        """
        shown = repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
        match = _OPERATOR.search(text)
        key = "" if match is None else text[: match.start()].strip()
        if match is None or not key or "!" in key:
            raise NestKALAError(f"a condition is like folder=2019, date>=2024-05 or camera=Pixel, not {shown}")
        sign, value = match.group(), text[match.end() :].strip()
        if key == "folder" and sign not in ("=", "!="):
            raise NestKALAError(f"folders are compared by = and != only, not by {sign} as in {shown}")
        return cls(key, sign, value.strip("/") if key == "folder" else value)

    def holds(self, name: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the item of this id and metadata satisfies it."""
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
    """The conditions that these texts state, as for `Condition.parse`; all of them must hold."""
    return [Condition.parse(text) for text in ([texts] if isinstance(texts, str) else texts)]


def items_that_satisfy(
    items: Iterable[tuple[str, Mapping[str, Any]]], conditions: Sequence[Condition]
) -> tuple[list[int], set[str]]:
    """The places of the items, ids with metadata, for which all conditions hold; and the keys that any item has."""
    places, keys = [], set[str]()
    for place, (name, metadata) in enumerate(items):
        keys.update(metadata)
        if all(condition.holds(name, metadata) for condition in conditions):
            places.append(place)
    return places, keys


def check_keys(conditions: Sequence[Condition], keys: Iterable[str]) -> None:
    """Raise NestKALAError for a condition on a key that no item has; `keys` are those that any has."""
    known = {"folder", *keys}
    for condition in conditions:
        if condition.key not in known:
            listed = ", ".join(sorted(known)[:_MOST_LISTED])
            suggestion = nearest(condition.key, known)
            raise NestKALAError(f"no item has the key {condition.key!r}{suggestion} (keys: {listed})")
