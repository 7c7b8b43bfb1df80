"""The settings of the group `head`."""

from typing import Annotated

from pydantic import Field, StrictInt, field_validator

from ...utils.limits import MAX_LENGTH
from ..arguments import comma_separated
from .group import Settings


class HeadSettings(Settings):
    """The lengths of the codes, and the layer that makes them."""

    lengths: Annotated[tuple[StrictInt, ...], comma_separated(int, "BITS,BITS,...")] = Field(
        (8, 16, 32), description=f"code lengths in bits, each 1 to {MAX_LENGTH}, any number of them"
    )
    head: str = Field(
        "nested",
        description="hash layer, a name that `nestkala list heads` shows; nested gives a code at every length up to "
        "the longest, flat and cascade (random start only) at the lengths trained",
    )
    batch_norm: bool = Field(
        True,
        description="random start: normalise every bit over the batch before tanh, without which bits tend to die; "
        "a start from text has bits centred and scaled already, and never does",
    )

    @field_validator("lengths")
    @classmethod
    def _sorted(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if not lengths or not all(1 <= bits <= MAX_LENGTH for bits in lengths):
            raise ValueError(f"lengths must be 1 to {MAX_LENGTH} bits each, at least one, not {list(lengths)}")
        return tuple(sorted(set(lengths)))
