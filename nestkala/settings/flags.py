"""The command line of `nestkala train`: its arguments, and the settings that result."""

import argparse
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ..plugins import WITH_HSWD
from ..utils.errors import NestKALAError, nearest
from .arguments import optional_metavar
from .config import Base, Config, without_inapplicable
from .files import shipped_files
from .groups import GROUPS
from .loading import read_base

FIRST = ("data", "shots", "lengths", "backbone", "output", "archive", "classes", "config", "seed", "queries")
"""Settings that the help shows before the groups."""


def _argument(key: str) -> tuple[str, Any, Any]:
    """A setting as a field of a dataclass."""
    setting = Config.model_fields[key]
    metavar = optional_metavar(setting.annotation)
    hint = None if metavar is None else _default_unless_none
    about = arg(help=setting.description, metavar=metavar, help_behavior_hint=hint)
    kind: Any = Annotated[(setting.annotation, *setting.metadata, about)]
    return key, kind, field(default_factory=partial(setting.get_default, call_default_factory=True))


def _default_unless_none(default: str) -> str:
    return "" if default == "None" else f"(default: {default})"


def _group(name: str) -> tuple[str, Any, Any]:
    """The remaining settings of a group, as a field of a dataclass."""
    settings = GROUPS[name]
    group = make_dataclass(settings.__name__, [_argument(key) for key in settings.model_fields if key not in FIRST])
    group.__doc__ = settings.__doc__
    return f"{name}_group", Annotated[group, arg(name=name)], field(default_factory=group)


@dataclass(frozen=True)
class Flags:
    """Train binary codes of every length from a few labeled images per class.

    Settings come from the YAML file that --config names and from flags, which take precedence. A setting that would
    have no effect is an error.
    """

    where: Positional[
        Annotated[
            str | None,
            arg(
                metavar="[FOLDER]",
                help="image folder, same as --data; or, if there is no such folder, a shipped config, same as --config",
                help_behavior_hint="",
            ),
        ]
    ] = None


_FIELDS = [*map(_argument, FIRST), *map(_group, GROUPS)]
Train: type[Flags] = make_dataclass("Train", _FIELDS, bases=(Flags,), frozen=True)
Train.__doc__ = Flags.__doc__


def described(args: Sequence[str]) -> Flags:
    """Flags whose defaults in the help are the settings of the file that --config or --resume names, if any.

    Raises:
        NestKALAError: if there is something wrong with the file.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    parser.add_argument("--resume", nargs="?", type=Path)
    named = {key: value for key, value in vars(parser.parse_known_args(args)[0]).items() if value is not None}
    if not named or not {"-h", "--help"} & set(args):
        return Train()
    base, defaults = base_config(named), Train()
    values: dict[str, Any] = {key: getattr(base, key) for key in FIRST}
    for each in fields(defaults):
        if is_dataclass(group := getattr(defaults, each.name)):
            values[each.name] = replace(group, **{of.name: getattr(base, of.name) for of in fields(group)})  # type: ignore[type-var]
    return Train(**values)


def given(parsed: Flags, args: Sequence[str]) -> dict[str, Any]:
    """{setting: value} for the settings given on the command line.

    Args:
        parsed: parsed flags.
        args: the command line; a setting whose flag appears there counts as given, even if it has its default value.

    Raises:
        NestKALAError: if a folder does not exist, or is given twice.
    """
    words = (re.match(r"--(?:no-)?([\w-]+)", word) for word in args)
    named = {word[1].replace("-", "_") for word in words if word}
    defaults = _values(Train())
    flags = {key: value for key, value in _values(parsed).items() if key in named or value != defaults[key]}
    if parsed.where is None:
        return flags
    key = _meaning(parsed.where)
    if key in flags:
        raise NestKALAError(f"{parsed.where} and --{key} {flags[key]} set the same thing: leave one out")
    return flags | {key: parsed.where}


def _values(parsed: Flags) -> dict[str, Any]:
    """{setting: value} for all settings."""
    values = {each.name: getattr(parsed, each.name) for each in fields(parsed) if each.name != "where"}
    groups = [values.pop(name) for name, value in list(values.items()) if is_dataclass(value)]
    return values | {each.name: getattr(group, each.name) for group in groups for each in fields(group)}


def _meaning(where: str) -> str:
    """The setting that the argument without a flag is a value of."""
    if Path(where).exists():
        return "data"
    shipped = shipped_files("nestkala.configs")
    if where in shipped:
        return "config"
    raise NestKALAError(
        f"there is no folder {where}, nor a shipped config of that name ({', '.join(shipped)}){nearest(where, shipped)}"
    )


def base_config(flags: Mapping[str, Any]) -> Base:
    """The settings that flags are applied to: those of the file that --config (or --resume) names.

    A setting without effect there may have one together with the flags; `with_flags` decides.

    Without either, the settings of the shipped default, which are for its data. With another --data they are those of
    no file; with --archive too, except that there is no labeled data, and lengths are those of the config photos.

    Args:
        flags: {setting: value} for the settings that were given (`given`).

    Raises:
        NestKALAError: if there is something wrong with the file.
    """
    resume, config = flags.get("resume"), flags.get("config")
    if resume is not None:
        if config is not None:
            raise NestKALAError("--resume uses the settings of its run: it cannot be combined with --config")
        if not (resume / "config.yaml").is_file():
            raise NestKALAError(f"--resume: {resume} is not a run folder: it contains no config.yaml")
        return read_base(str(resume / "config.yaml"))
    if config is not None:
        return read_base(config, flags.get("shots"))
    if flags.get("archive") is not None:
        about = {key: flags[key] for key in ("data", "archive", "classes") if key in flags}
        return Base(**{"data": "none", "lengths": read_base("photos").lengths} | about)
    default = read_base(Config.model_fields["config"].default)
    return default if flags.get("data", default.data) == default.data else Base()


def with_flags(base: Base, flags: Mapping[str, Any]) -> Config:
    """The settings of a base with flags applied.

    Args:
        base: settings from `base_config`.
        flags: {setting: value} for the settings that were given (`given`).

    Raises:
        NestKALAError: if a flag, or a setting in the user's own file, has no effect. Settings without effect in a
            shipped file or in a run's file are dropped.
    """
    values = {key: getattr(base, key) for key in base.model_fields_set} | dict(flags)
    loss = values.get("loss", base.loss).removesuffix(WITH_HSWD)
    if loss != base.base_loss and "loss_args" not in flags.keys() | base.own:
        values.pop("loss_args", None)  # these belong to the base's loss
    droppable: AbstractSet[str] = base.model_fields_set - base.own - flags.keys()
    return without_inapplicable(values, droppable)
