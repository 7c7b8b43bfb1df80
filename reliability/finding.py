"""What a harness finds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """A line of the table.

    Attributes:
        what: was done.
        measured: in words.
        promised: in words.
        held: whether the promise was kept.
        details: behind it, for JSON.
    """

    what: str
    measured: str
    promised: str
    held: bool
    details: dict[str, object] = field(default_factory=dict)
