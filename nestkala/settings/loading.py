"""Reads and writes settings as YAML, including files from earlier versions."""

import logging
from pathlib import Path
from typing import Any

import yaml

from ..utils.errors import NestKALAError, nearest
from .by_shots import at_shots
from .config import Base, Config, without_inapplicable
from .files import read_settings
from .groups import GROUPS

logger = logging.getLogger(__name__)

_WITHOUT_EFFECT = dict.fromkeys(
    ("ridge", "text_weight", "unlabelled_weight"),
    "the start now estimates how far to trust names, labels and unlabeled images",
)
"""Settings of earlier versions that files may still contain."""

_RENAMED = {"centres": "centers", "unlabelled": "unlabeled"}
"""Settings that earlier versions spelled differently, as in the files of their runs."""

_IN_EVERY_RUN = {
    *("lengths", "data_root", "protocol_seed", "projections", "prompt_length", "adapter_init", "gamma", "momentum"),
    *("weight_decay", "tracker", "encode_batch_size", "cache_gb"),
}
"""A file with all of these is a run's, which contains every setting, even those without effect."""


def load_config(name: str, shots: int | str | None = None) -> Config:
    """Read a shipped config by name, or a YAML file by path; in a run's file, settings without effect are dropped.

    Args:
        name: name of a shipped config, or path of a file.
        shots: number of shots, or a word, at which a section `by_shots` is read (`at_shots`); None for the file's own.

    Raises:
        NestKALAError: if there is no such file or name, it is not a YAML mapping, a key is unknown, a value is
            impossible, a setting has no effect, or there are no settings for this number of shots.
    """
    base = read_base(name, shots)
    values = {key: getattr(base, key) for key in base.model_fields_set}
    try:
        return without_inapplicable(values, values.keys() - base.own)
    except NestKALAError as error:
        raise NestKALAError(f"{name}: {error}") from None


def read_base(name: str, shots: int | str | None = None) -> Base:
    """Read a file like `load_config`, as a base for other settings: settings without effect are not rejected yet.

    Raises:
        NestKALAError: see `load_config`.
    """
    path, values = read_settings("config", name, "nestkala.configs")
    shots = int(shots) if isinstance(shots, str) and shots.isdecimal() else shots
    values = _without_groups(path, values)
    if isinstance(sections := values.get("by_shots"), dict):
        values["by_shots"] = {
            count: _without_groups(path, own) if isinstance(own, dict) else own for count, own in sections.items()
        }
    values = at_shots(path, values, shots)
    in_file = [key for key in Config.model_fields if key not in ("config", "resume")]
    for key in [key for key in values if key in _WITHOUT_EFFECT]:
        logger.warning("%s: %s no longer has any effect: %s", path, key, _WITHOUT_EFFECT[key])
        del values[key]
    for key in values:
        if key not in in_file:
            raise NestKALAError(f"{path}: unknown key '{key}'{nearest(str(key), in_file)}")
    try:
        base = Base(**values, config=name)
    except NestKALAError as error:
        raise NestKALAError(f"{path}: {error}") from None
    if path == Path(name) and not values.keys() >= _IN_EVERY_RUN:
        base._own = frozenset(values)
    return base


def dump_config(config: Config) -> str:
    """The settings as YAML by groups, in the format of `load_config`, without the name of their source."""
    values = config.model_dump(mode="json", exclude={"config", "resume"})
    grouped = {
        name: {key: values.pop(key) for key in group.model_fields if key in values} for name, group in GROUPS.items()
    }
    return yaml.safe_dump(values | grouped, sort_keys=False, allow_unicode=True)


def _without_groups(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """{setting: value} of a file whose settings are in groups or, in files of earlier versions, at the top level."""
    flat = {_RENAMED.get(key, key): value for key, value in values.items() if not _is_group(key, value)}
    for name in [key for key, value in values.items() if _is_group(key, value)]:
        known = GROUPS[name].model_fields
        for written, value in (values[name] or {}).items():
            key = _RENAMED.get(written, written)
            if key not in known:
                groups = [other for other, group in GROUPS.items() if key in group.model_fields]
                where = f": it belongs to the group {groups[0]}" if groups else nearest(str(key), known)
                raise NestKALAError(f"{path}: unknown key '{name}.{key}'{where}")
            if key in flat:
                raise NestKALAError(f"{path}: '{key}' is set twice, once in the group {name}")
            flat[key] = value
    if flat.get("gallery") == "labelled":  # as earlier versions spelled it
        flat["gallery"] = "labeled"
    return flat


def _is_group(key: str, value: Any) -> bool:
    """Some groups have the name of a setting, but a setting's value is never a mapping."""
    return key in GROUPS and (value is None or isinstance(value, dict))
