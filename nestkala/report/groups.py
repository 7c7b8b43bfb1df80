"""Groups runs by settings: seeds of the same settings together, each group named by what sets it apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from ..settings.checks import FREE_ON_RESUME
from ..settings.config import Config
from ..utils.errors import NestKALAError, as_line
from .measurements import RunMeasurements

_MOST_IN_A_NAME = 3
_NOT_COMPARED = (FREE_ON_RESUME - {"epochs"}) | {"config", "output", "seed", "data", "data_root"}


class OfRun(Protocol):
    """An object that belongs to a run folder."""

    @property
    def name(self) -> str:
        """Name of the folder."""

    @property
    def folder(self) -> str | Path:
        """The run's folder, as given."""

    @property
    def config(self) -> Config:
        """Settings of the run."""


Run = TypeVar("Run", bound=OfRun)


@dataclass(frozen=True, eq=False)
class RunGroup(Generic[Run]):
    """Runs whose settings are equal except for the seed.

    Attributes:
        name: what sets it apart from the other groups.
        runs: at least one run.
        differing: its settings in which the groups differ, {name: value}.
    """

    name: str
    runs: list[Run]
    differing: dict[str, str]

    @property
    def first(self) -> Run:
        """The run that represents the group if only one can be shown."""
        return self.runs[0]


Group = RunGroup[RunMeasurements]


def group_runs(runs: Sequence[Run], same_data: bool = True) -> list[RunGroup[Run]]:
    """Group the runs, in the order of each group's first run.

    Args:
        runs: at least one run.
        same_data: whether all have the same queries and gallery, regardless of paths; if not, data sets count as a
            difference.

    Raises:
        NestKALAError: if two runs have the same settings and seed.
    """
    compared = Config.model_fields.keys() - _NOT_COMPARED | (set() if same_data else {"data"})
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(repr(_settings(run.config, compared)), []).append(run)
    settings = [_settings(members[0].config, compared) for members in together.values()]
    keys = [key for key in settings[0] if any(other[key] != settings[0][key] for other in settings)]
    alike = len({members[0].name for members in together.values()}) < len(together)
    groups: list[RunGroup[Run]] = []
    for members, own in zip(together.values(), settings, strict=True):
        _check_seeds(members)
        differing = {key: _as_text(own[key]) for key in keys}
        name = str(members[0].folder) if alike else members[0].name
        if 0 < len(keys) <= _MOST_IN_A_NAME:
            name = ", ".join(f"{key} {value}" for key, value in differing.items())
        elif len(members) > 1:
            name = f"{name} and {len(members) - 1} more"
        groups.append(RunGroup(as_line(name), members, differing))
    return groups


def _check_seeds(members: Sequence[Run]) -> None:
    of_seed: dict[int, Run] = {}
    for run in members:
        other = of_seed.setdefault(run.config.seed, run)
        if other is not run:
            raise NestKALAError(
                f"{other.folder} and {run.folder} have the same settings and seed: give only one of them"
            )


def _settings(config: Config, compared: set[str]) -> dict[str, Any]:
    return {key: value for key, value in config if key in compared}


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
