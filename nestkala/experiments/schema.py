"""Experiment files: which methods to compare, on which data and how, in a few lines of YAML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError, field_validator, model_validator

from ..settings.config import Config
from ..settings.files import read_settings
from ..utils.errors import NestKALAError, nearest, unknown_name
from ..utils.limits import MAX_LENGTH
from ..utils.validation import in_words

Settings = dict[str, Any]
Measure = Literal["map", "map_tie_aware", "copy_recall_at_1", "copy_recall_at_10"]
Shots = Annotated[StrictInt, Field(ge=0)]
Length = Annotated[StrictInt, Field(ge=1, le=MAX_LENGTH)]

MOST_SEEDS = 1000

GRID_KEYS = {"config", "resume", "output", "seed", "shots", "lengths"}
"""Settings of a run that the grid sets."""
_SETTINGS = Config.model_fields.keys() - GRID_KEYS


class Method(BaseModel):
    """A row of the tables, or one row per value of a sweep. All other keys are settings of its runs that differ."""

    model_config = ConfigDict(frozen=True, extra="allow")

    base: str | None = Field(None, description="config that its runs start from, instead of the file's")
    one_model: bool = Field(False, description="train one model for all lengths, instead of one per length")
    shots: tuple[Shots, ...] | None = Field(None, description="shots to run it at; by default all of the file's")
    sweep: dict[str, tuple[Any, ...]] = Field(
        {}, description="{setting: values} for one setting, with one row per value"
    )
    reference: str | None = Field(
        None, description="method to compare with, seed by seed; in a sweep, the row with the same value"
    )

    @property
    def settings(self) -> Settings:
        """The settings that differ."""
        return dict(self.model_extra or {})


class Tune(BaseModel):
    """A setting whose best value is chosen for every method, on images of the same data that no table uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sweep: dict[str, tuple[Any, ...]] = Field(description="{setting: values} for one setting")
    shots: Shots = Field(description="labeled images per class for tuning")
    lengths: tuple[Length, ...] = Field(
        (), description="lengths to tune at if there is one model per length; by default all. Other methods use all"
    )

    @property
    def setting(self) -> str:
        """The setting that is tuned."""
        return next(iter(self.sweep))


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: name in the table.
        method: name of its method.
        value: its value in the sweep; None without a sweep.
        settings: settings that differ from the file's.
    """

    name: str
    method: str
    value: Any
    settings: Settings


class Experiment(BaseModel):
    """A grid of training runs, data set x shots x method x lengths x seeds, and what its tables show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^\w[\w.-]*$", description="name of its output and run folders; by default the file's name"
    )
    title: str
    about: str = Field("", description="text above the tables")
    base: str = Field(
        description="config that all runs start from, a shipped one or the path of a YAML file; its data, shots and "
        "lengths are ignored"
    )
    settings: Settings = Field({}, description="settings shared by all runs that differ from the base")
    data: dict[str, Settings] = Field(
        min_length=1, description="{name: location of a data set and settings that differ for it}"
    )
    shots: tuple[Shots, ...] = Field(min_length=1)
    lengths: tuple[Length, ...] = Field(min_length=1, description="in bits")
    seeds: StrictInt = Field(3, ge=1, le=MOST_SEEDS, description="number of seeds: 0, 1, ...")
    measures: tuple[Measure, ...] = Field(("map_tie_aware",), min_length=1)
    tune: Tune | None = Field(None, description="tune a setting for the methods that do not set it")
    seconds: bool = Field(False, description="show training time, all lengths together")
    methods: dict[str, Method] = Field(min_length=1)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise NestKALAError(in_words(error, type(self).model_fields)) from None

    @property
    def rows(self) -> list[Row]:
        """The rows of the tables, in order."""
        return [row for name in self.methods for row in self.rows_of(name)]

    def rows_of(self, name: str) -> list[Row]:
        """The rows of one method: one per value of its sweep."""
        method = self.methods[name]
        if not method.sweep:
            return [Row(name, name, None, method.settings)]
        ((key, values),) = method.sweep.items()
        return [Row(f"{name}, {key} {value}", name, value, method.settings | {key: value}) for value in values]

    def reference_of(self, row: Row) -> Row | None:
        """The row that this one is compared with, if any."""
        reference = self.methods[row.method].reference
        if reference is None:
            return None
        rows = self.rows_of(reference)
        return next(other for other in rows if not self.methods[reference].sweep or other.value == row.value)

    def restricted(self, seeds: int | None, shots: Sequence[int], methods: Sequence[str]) -> Self:
        """Restrict the runs, or change the seeds: None and an empty list change nothing.

        Raises:
            NestKALAError: if shots or methods are not in the file, or nothing is left.
        """
        for name in methods:
            if name not in self.methods:
                raise unknown_name(f"method in {self.name}", name, self.methods)
        if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
            raise NestKALAError(f"seeds must be 1 to {MOST_SEEDS}, not {seeds}")
        known = sorted({count for name in self.methods for count in self.shots_of(name)})
        if unknown := sorted(set(shots) - set(known)):
            raise NestKALAError(f"{self.name} has no runs at {unknown[0]} shots (known: {_listed(known)})")
        at = {name: tuple(count for count in self.shots_of(name) if count in (shots or known)) for name in self.methods}
        chosen = [name for name in self.methods if at[name] and name in (methods or self.methods)]
        if not chosen:
            raise NestKALAError(f"{self.name}: none of the chosen methods runs at {_listed(shots)} shots")
        fewer = {}
        for name in chosen:
            method = self.methods[name]
            reference = method.reference if method.reference in chosen else None
            fewer[name] = method.model_copy(update={"shots": at[name], "reference": reference})
        return self.model_copy(update={"seeds": seeds or self.seeds, "methods": fewer})

    @property
    def tuning(self) -> list[Self]:
        """The experiments that tune it, on other queries: first models of one length each, then of all lengths."""
        if self.tune is None:
            return []
        found = []
        for one_model in (False, True):
            methods = {
                name: method.model_copy(update={"sweep": self.tune.sweep, "shots": None, "reference": None})
                for name, method in self.methods.items()
                if method.one_model == one_model and self.tune.setting not in method.settings | method.sweep
            }
            lengths = self.lengths if one_model or not self.tune.lengths else self.tune.lengths
            own = {"name": f"{self.name}-tuning", "seeds": 1, "shots": (self.tune.shots,), "methods": methods}
            own |= {"lengths": lengths, "settings": self.settings | {"protocol_seed": 1}, "tune": None}
            if methods:
                found.append(self.model_copy(update=own))
        return found

    def shots_of(self, method: str) -> tuple[int, ...]:
        """The numbers of shots that a method is run at."""
        own = self.methods[method].shots
        return self.shots if own is None else own

    @field_validator("data", "methods", mode="before")
    @classmethod
    def _nothing_differs(cls, entries: Any) -> Any:
        """A bare "name:" counts as a mapping without keys."""
        if not isinstance(entries, dict):
            return entries
        return {name: {} if entry is None else entry for name, entry in entries.items()}

    @field_validator("shots", "lengths")
    @classmethod
    def _sorted(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(counts)))

    @model_validator(mode="after")
    def _together(self) -> Self:
        for where, settings, own in self._settings():
            for key in settings:
                if key in GRID_KEYS:
                    raise ValueError(f"{where}.{key}: shots, lengths and seeds belong at the top level of the file")
                if key in ("data", "data_root") and where.startswith("methods."):
                    raise ValueError(f"{where}.{key}: images are set under data, for all methods")
                if (where, key) == ("settings", "data"):
                    raise ValueError("settings.data: images are set under data, by the name of each data set")
                if key not in _SETTINGS:
                    raise ValueError(f"unknown key '{where}.{key}'{nearest(key, [*own, *_SETTINGS])}")
        for name, entry in self.data.items():
            if "data" not in entry:
                raise ValueError(f"data.{name}.data is missing: give a data set or a folder")
        sweeps = {f"methods.{name}": method.sweep for name, method in self.methods.items()}
        for where, sweep in (sweeps | ({"tune": self.tune.sweep} if self.tune else {})).items():
            if len(sweep) > 1 or not all(sweep.values()) or (where == "tune" and not sweep):
                raise ValueError(f"{where}.sweep must be one setting with at least one value")
        for name, method in self.methods.items():
            self._check_reference(name, method)
        return self

    def _settings(self) -> Iterator[tuple[str, Settings, list[str]]]:
        """Every mapping of settings: its place in the file, the mapping, and other keys allowed there."""
        yield "settings", self.settings, []
        for name, entry in self.data.items():
            yield f"data.{name}", entry, []
        for name, method in self.methods.items():
            yield f"methods.{name}", method.settings, list(Method.model_fields)
            yield f"methods.{name}.sweep", method.sweep, []
        if self.tune:
            yield "tune.sweep", self.tune.sweep, []

    def _check_reference(self, name: str, method: Method) -> None:
        if method.reference is None:
            return
        if method.reference not in self.methods:
            raise ValueError(
                f"methods.{name}.reference: unknown method '{method.reference}'"
                f"{nearest(method.reference, self.methods)}"
            )
        theirs = self.methods[method.reference].sweep
        if theirs and theirs != method.sweep:
            raise ValueError(
                f"methods.{name}.reference: '{method.reference}' sweeps {next(iter(theirs))}, so {name} must too, "
                "over the same values"
            )


def load_experiment(name: str) -> Experiment:
    """Read a shipped experiment file by name, or a YAML file by path.

    Raises:
        NestKALAError: if there is no such file or name, it is not a YAML mapping, a key is unknown, or a value is
            impossible.
    """
    path, values = read_settings("experiment", name, "nestkala.configs.experiments")
    try:
        return Experiment(**{"name": path.stem} | values)
    except NestKALAError as error:
        raise NestKALAError(f"{path}: {error}") from None


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
