"""Losses and heads by name: the package's own, and those that other packages bring as entry points."""

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from .utils.errors import NestKALAError, nearest, one_line, unknown_name

Kind = Literal["losses", "heads"]

OWN: dict[Kind, dict[str, str]] = {
    "losses": {
        "adsh": "ADSH",
        "csq": "CSQ",
        "dbdh": "DBDH",
        "dch": "DCH",
        "dhn": "DHN",
        "dpn": "DPN",
        "dpsh": "DPSH",
        "dsdh": "DSDH",
        "dsh": "DSH",
        "dtsh": "DTSH",
        "greedyhash": "GreedyHash",
        "hashnet": "HashNet",
        "kiddo": "KIDDO",
        "lcdsh": "LCDSH",
        "mdsh": "MDSH",
        "orthohash-arc": "OrthoHashArc",
        "orthohash-cos": "OrthoHashCos",
    },
    "heads": {"cascade": "CascadeHashHead", "flat": "FlatHashHead", "nested": "NestedHashHead"},
}
"""{name: class} of the package's own."""
WITH_HSWD = "-hswd"
"""Ending of a loss's name that puts HSWD in the place of its quantization term."""

_CONTRACT: dict[Kind, str] = {"losses": "HashLoss", "heads": "HashHead"}


@dataclass(frozen=True)
class Plugin:
    """A loss or a head that is installed.

    Attributes:
        kind: what it is.
        name: what a user types.
        origin: the distribution that brings it, with its version.
        entry: where it is.
    """

    kind: Kind
    name: str
    origin: str
    entry: EntryPoint

    def load(self) -> Any:
        """The class, a `HashLoss` or a `HashHead`.

        Raises:
            NestKALAError: its package does not import, lacks it, or it is of another kind.
        """
        where = f"{self.origin} ({self.entry.value})"
        try:
            found = self.entry.load()
        except Exception as error:  # whatever a stranger's module raises
            raise NestKALAError(f"'{self.name}' of {where} cannot be loaded: {one_line(error)}") from error
        contract = getattr(import_module(f"nestkala.{self.kind}"), _CONTRACT[self.kind])
        if not (isinstance(found, type) and issubclass(found, contract)):
            raise NestKALAError(f"'{self.name}' of {where} is no {_CONTRACT[self.kind]}, but {found!r}")
        return found


def plugins(kind: Kind) -> dict[str, Plugin]:
    """All that are installed, by name, in alphabetical order. Nothing is imported.

    Other packages bring theirs as entry points `NAME = "module:Class"` of the group nestkala.losses or nestkala.heads.

    Raises:
        NestKALAError: two packages bring the same name, or one brings a loss whose name ends in -hswd.
    """
    group = f"nestkala.{kind}"
    own = [EntryPoint(name, f"{group}:{attribute}", group) for name, attribute in OWN[kind].items()]
    found: dict[str, Plugin] = {}
    for entry in (*own, *entry_points(group=group)):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "nestkala"
        other = found.setdefault(entry.name, Plugin(kind, entry.name, origin, entry))
        if other.entry.value != entry.value:
            raise NestKALAError(f"{other.origin} and {origin} both bring '{entry.name}' to {kind}: uninstall one")
        if kind == "losses" and entry.name.endswith(WITH_HSWD):
            raise NestKALAError(
                f"{origin} brings '{entry.name}' to losses, where {WITH_HSWD} at the end means HSWD: rename it"
            )
    return dict(sorted(found.items()))


def find_plugin(kind: Kind, name: str) -> Plugin:
    """The one of this name.

    Raises:
        NestKALAError: there is none; names the nearest and all known.
    """
    known = plugins(kind)
    if name not in known:
        raise unknown_name({"losses": "loss", "heads": "head"}[kind], name, known)
    return known[name]


def check_loss(name: str) -> None:
    """Raise NestKALAError unless there is a loss of this name, which may end in -hswd; names the nearest and all."""
    known = list(plugins("losses"))
    if name.removesuffix(WITH_HSWD) not in known:
        close = nearest(name, [*known, *(f"{loss}{WITH_HSWD}" for loss in known)])
        listed = ", ".join(known)
        raise NestKALAError(f"unknown loss '{name}'{close} (known: {listed}; each also as NAME{WITH_HSWD})")
