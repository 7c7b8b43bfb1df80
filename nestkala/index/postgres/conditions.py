"""Conditions on items as SQL over the columns `id` and `metadata`."""

import math
from collections.abc import Sequence
from typing import Any

from psycopg import sql

from ..conditions import Condition

_SPACE = r"[ \t\n\r\f\v]*"
_DIGITS = "[0-9](_?[0-9])*"
_NUMBER = rf"^{_SPACE}[+-]?(({_DIGITS}[.]?({_DIGITS})?|[.]{_DIGITS})(e[+-]?[0-9]?[0-9])?|inf(inity)?){_SPACE}$"
_NOT_A_NUMBER = rf"^{_SPACE}[+-]?nan{_SPACE}$"
_LONGEST = 200
"""Maximum number of characters in a number, so that it does not overflow."""


def all_hold(conditions: Sequence[Condition]) -> tuple[sql.Composable, dict[str, Any]]:
    """An SQL expression for the items that satisfy all conditions, and its parameters.

    It differs from `Condition.holds` only in unlikely cases: mappings within lists compare as JSON, and numbers of more
    than 200 characters, or written with three-digit exponents, compare as text.
    """
    expressions: list[sql.Composable] = [sql.SQL("true")]
    parameters: dict[str, Any] = {}
    for number, condition in enumerate(conditions):
        of_one, names = _holds(condition, f"_{number}")
        expressions.append(of_one)
        parameters |= names
    return sql.SQL(" AND ").join(expressions), parameters


def _holds(condition: Condition, suffix: str) -> tuple[sql.Composable, dict[str, Any]]:
    negated = sql.SQL("NOT " if condition.operator == "!=" else "")
    parameters: dict[str, Any] = {}

    def parameter(name: str, value: Any) -> sql.Placeholder:
        parameters[name + suffix] = value
        return sql.Placeholder(name + suffix)

    if condition.key == "folder":
        inside: sql.Composable = sql.SQL("true")
        if condition.value:  # as a range, which can use the index on ids; "0" follows "/"
            first, end = parameter("first", f"{condition.value}/"), parameter("end", f"{condition.value}0")
            inside = sql.SQL("(id >= {} AND id < {})").format(first, end)
        return negated + inside, parameters

    compare = sql.SQL("=" if condition.operator == "!=" else condition.operator)
    value = parameter("value", condition.value)
    compared = sql.SQL('said {} {}::text COLLATE "C"').format(compare, value)
    number = _as_number(condition.value)
    if condition.key == "date":
        length = parameter("length", len(condition.value))
        compared = sql.SQL('left(said, {}) {} {}::text COLLATE "C"').format(length, compare, value)
    elif number is not None:
        of_numbers: sql.Composable = sql.SQL("false")
        if not math.isnan(number):
            of_numbers = sql.SQL("replace(said, '_', '')::float8 {} {}::float8").format(
                compare, parameter("number", number)
            )
        compared = sql.SQL(
            "CASE WHEN length(said) <= {longest} AND said ~* {number} THEN {of_numbers} "
            "WHEN said ~* {not_a_number} THEN false ELSE {compared} END"
        ).format(
            longest=sql.Literal(_LONGEST),
            number=sql.Literal(_NUMBER),
            of_numbers=of_numbers,
            not_a_number=sql.Literal(_NOT_A_NUMBER),
            compared=compared,
        )
    found = sql.SQL("(metadata -> {}::text)").format(parameter("key", condition.key))
    any_holds = sql.SQL(
        "(coalesce(jsonb_typeof({found}) <> 'null', false) AND EXISTS (SELECT FROM jsonb_array_elements("
        "CASE jsonb_typeof({found}) WHEN 'array' THEN {found} ELSE jsonb_build_array({found}) END) AS entries (entry), "
        "LATERAL (SELECT coalesce(entry #>> '{{}}', 'None')) AS texts (said) WHERE {compared}))"
    ).format(found=found, compared=compared)
    return negated + any_holds, parameters


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
