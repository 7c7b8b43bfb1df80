"""Conditions on items: what they say, and what is no condition."""

import pytest

from nestkala.index.conditions import Condition, parse_conditions
from nestkala.utils.errors import NestKALAError

ITEM = {"date": "2024-05-17T08:30:00", "stars": 4, "camera": "Pixel 7", "tags": ["sea", "dog"], "raw": False}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("folder=2024", True),
        ("folder=2024/may", True),
        ("folder = 2024/may/", True),
        ("folder=2024/ma", False),
        ("folder=", True),
        ("folder!=2024/may", False),
        ("folder!=2023", True),
        ("date>=2024-05", True),
        ("date<=2024-05", True),
        ("date<2024-05", False),
        ("date=2024", True),
        ("date>2024-05-16", True),
        ("stars>=4", True),
        ("stars>10", False),  # as numbers, not as text
        ("stars=4.0", True),
        ("camera=Pixel 7", True),
        ("camera!=Pixel 7", False),
        ("camera<Q", True),
        ("tags=dog", True),
        ("tags!=dog", False),
        ("tags=cat", False),
        ("raw=false", True),
        ("lens=50mm", False),
        ("lens!=50mm", True),
        ("lens<50", False),
    ],
)
def test_a_condition_holds_for_an_item_or_not(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds("2024/may/a.jpg", ITEM) is holds


@pytest.mark.parametrize("text", ["", "folder", "=3", "date", "folder>2019", ">=2024"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(NestKALAError, match=r"condition is like|folders are compared"):
        parse_conditions(["stars=4", text])


def test_a_value_may_hold_signs() -> None:
    assert Condition.parse("note=a=b>c") == Condition("note", "=", "a=b>c")
