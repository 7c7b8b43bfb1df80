"""Command-line syntax of settings."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

_METAVARS = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


def comma_separated(item: type, metavar: str) -> PrimitiveConstructorSpec:
    """Parses a tuple on the command line: its items separated by commas in one word, which may be empty."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: tuple(item(word.strip()) for word in words[0].split(",") if words[0]),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(map(str, value))],
    )


def optional_metavar(kind: Any) -> str | None:
    """The help's placeholder for the value of an `int | None` or similar; None for other types."""
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return None
    shown = list[str]()
    for member in get_args(kind):
        if get_origin(member) is Literal:
            shown += map(str, get_args(member))
        elif member is not NoneType:
            shown.append(_METAVARS[member])
    return "|".join(shown)


def hide_none(command: type) -> None:
    """Make the help of a dataclass show INT instead of {None}|INT, and no default if it is None."""
    hints = get_type_hints(command, include_extras=True)
    for name, kind in hints.items():
        if (metavar := optional_metavar(kind)) is not None:
            command.__annotations__[name] = Annotated[kind, arg(metavar=metavar, help_behavior_hint="")]
