"""The settings of the group `head`."""

from typing import Annotated

from pydantic import Field, StrictInt, field_validator

from ...utils.limits import MAX_LENGTH
from ..arguments import comma_separated
from .group import Settings


class HeadSettings(Settings):
    """The layer that outputs the codes, and their lengths."""

    lengths: Annotated[tuple[StrictInt, ...], comma_separated(int, "BITS,BITS,...")] = Field(
        (8, 16, 32),
        description=f"code lengths in bits, one or more, each from 1 to {MAX_LENGTH}; by default up to 128 with "
        "--archive",
    )
    head: str = Field(
        "nested",
        description="hash layer (see `nestkala list heads`): nested gives a code at every length up to the longest; "
        "flat and cascade only at the trained lengths, and need --head-init random",
    )
    batch_norm: bool = Field(
        True,
        description="normalize each bit over the batch before tanh, which keeps bits from becoming constant (random "
        "start only: the closed form already centers and scales them)",
    )

    @field_validator("lengths")
    @classmethod
    def _sorted(cls, lengths: tuple[int, ...]) -> tuple[int, ...]:
        if not lengths or not all(1 <= bits <= MAX_LENGTH for bits in lengths):
            raise ValueError(f"lengths must be 1 to {MAX_LENGTH} bits each, at least one, not {list(lengths)}")
        return tuple(sorted(set(lengths)))
