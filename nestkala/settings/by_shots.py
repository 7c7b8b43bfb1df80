"""Settings of a YAML file that depend on the number of labeled images per class: its section `by_shots`."""

from pathlib import Path
from typing import Any

from ..utils.errors import NestKALAError


def at_shots(path: Path, values: dict[str, Any], shots: int | str | None) -> dict[str, Any]:
    """A file's settings at this number of shots, including those of its section `by_shots`.

        by_shots:
          1: {rank: 1, gamma: 3}
          8: {rank: 4, gamma: 1}

    Args:
        path: path of the file, for errors.
        values: all settings in the file, without groups.
        shots: labeled images per class; None for the file's own value, or 1 if it has none.

    Raises:
        NestKALAError: if the section does not map shots to the same settings for each, repeats settings of the file,
            or has no settings for this number of shots.
    """
    if "by_shots" not in values:
        return values
    sections, shared = values["by_shots"], {key: value for key, value in values.items() if key != "by_shots"}
    if not isinstance(sections, dict) or not sections or not all(isinstance(own, dict) for own in sections.values()):
        raise NestKALAError(f"{path}: by_shots must map numbers of shots to settings, such as 4: {{rank: 1}}")
    known, first = ", ".join(map(str, sections)), next(iter(sections.values()))
    for count, own in sections.items():
        if type(count) is not int or count < 0:
            raise NestKALAError(f"{path}: by_shots has {count!r}, which is not a number of shots")
        if own.keys() != first.keys():
            one = str(min(own.keys() ^ first.keys(), key=str))
            raise NestKALAError(f"{path}: by_shots sets '{one}' only for some of {known} shots")
    for key in first:
        if key in shared or key == "shots":
            raise NestKALAError(f"{path}: '{key}' is set for all shots, and again in by_shots")
    chosen = shared.get("shots") if shots is None else shots
    chosen = 1 if chosen is None else chosen
    if chosen not in sections:
        raise NestKALAError(
            f"{path} has settings for {known} shots, not for {chosen}: add them under by_shots in a copy"
        )
    return shared | sections[chosen]
