"""Settings in YAML files: read, those of earlier versions too, and written."""

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
    "the start finds out by itself how far to trust names, labels and images without labels",
)
"""Settings of earlier versions, which files may still hold."""

_RENAMED = {"centres": "centers", "unlabelled": "unlabeled"}
"""Settings that earlier versions spelled differently, which the files of their runs hold."""

_IN_EVERY_RUN = {
    *("lengths", "data_root", "protocol_seed", "projections", "prompt_length", "adapter_init", "gamma", "momentum"),
    *("weight_decay", "tracker", "encode_batch_size", "cache_gb"),
}
"""A file with all of these is a run's, which holds every setting, also those without effect."""


def load_config(name: str, shots: int | str | None = None) -> Config:
    """Read a shipped config by name, or a YAML file by path; of a run's what has no effect is left out.

    Args:
        name: of the one, or path of the other.
        shots: at which a file with a section `by_shots` is read (`at_shots`), as a number or a word; None: at its own.

    Raises:
        NestKALAError: no such file or name, no YAML mapping, unknown keys, impossible values, one without effect, or no
            settings for so many shots.
    """
    base = read_base(name, shots)
    values = {key: getattr(base, key) for key in base.model_fields_set}
    try:
        return without_inapplicable(values, values.keys() - base.own)
    except NestKALAError as error:
        raise NestKALAError(f"{name}: {error}") from None


def read_base(name: str, shots: int | str | None = None) -> Base:
    """Read a file as `load_config` does, for others to be put on top: what has no effect is not refused yet.

    Raises:
        NestKALAError: as for `load_config`.
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
        logger.warning("%s: %s has no effect any more: %s", path, key, _WITHOUT_EFFECT[key])
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
    """The settings as YAML by groups, as `load_config` reads them; where they came from is left out."""
    values = config.model_dump(mode="json", exclude={"config", "resume"})
    grouped = {
        name: {key: values.pop(key) for key in group.model_fields if key in values} for name, group in GROUPS.items()
    }
    return yaml.safe_dump(values | grouped, sort_keys=False, allow_unicode=True)


def _without_groups(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """{setting: value} of a file, whose settings stand in their group or, as those of earlier versions do, in none."""
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
                raise NestKALAError(f"{path}: '{key}' is given twice, once in the group {name}")
            flat[key] = value
    if flat.get("gallery") == "labelled":  # as earlier versions spelled it
        flat["gallery"] = "labeled"
    return flat


def _is_group(key: str, value: Any) -> bool:
    """Some groups are called as a setting is, which is never a mapping."""
    return key in GROUPS and (value is None or isinstance(value, dict))
