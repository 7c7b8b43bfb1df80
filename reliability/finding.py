"""The result of a harness."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A row of the table.

    Attributes:
        what: what was done.
        measured: the result, as text.
        promised: the promise, as text.
        held: whether the promise was kept.
        details: the details behind it, for JSON.
    """

    what: str
    measured: str
    promised: str
    held: bool
    details: dict[str, object] = field(default_factory=dict)
