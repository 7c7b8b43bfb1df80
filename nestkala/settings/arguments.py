"""Command-line arguments and their help."""

import ast
import inspect
from dataclasses import MISSING, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def comma_separated(item: type, metavar: str) -> PrimitiveConstructorSpec:
    """A tuple on the command line: one word of comma-separated items, empty for an empty tuple."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: tuple(item(word.strip()) for word in words[0].split(",") if words[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def optional_metavar(kind: Any) -> str | None:
    """The placeholder that help shows for an `int | None` or similar; None for other types."""
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return None
    shown = list[str]()
    for member in get_args(kind):
        if get_origin(member) is Literal:
            shown += map(str, get_args(member))
        elif member is not NoneType:
            shown.append(_METAVARS[member])
    return "|".join(shown)


@cache
def plain_help(command: type) -> type:
    """Let the help of a dataclass show INT instead of {None}|INT, no empty default, and no ragged lines."""
    texts = _field_docstrings(command)
    hints = get_type_hints(command, include_extras=True)
    for field in fields(command):
        kind, *metadata = _unannotated(hints[field.name])
        is_empty = field.default in (None, (), MISSING) and UseAppendAction not in metadata
        about = arg(
            help=texts.get(field.name), metavar=optional_metavar(kind), help_behavior_hint="" if is_empty else None
        )
        command.__annotations__[field.name] = Annotated[(kind, about, *metadata)]
    return command


def summary(command: type) -> str:
    """The first line of a docstring."""
    return (command.__doc__ or "").partition("\n")[0]


def _unannotated(kind: Any) -> tuple[Any, ...]:
    """A type and its metadata."""
    return (kind.__origin__, *kind.__metadata__) if get_origin(kind) is Annotated else (kind,)


def _field_docstrings(command: type) -> dict[str, str]:
    """{field: docstring}, each on one line: tyro keeps the line breaks of strings below a field."""
    (definition,) = ast.parse(inspect.getsource(command)).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
