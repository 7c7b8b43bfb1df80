"""The settings of the group `start`."""

from typing import Any, Literal

from pydantic import Field, field_validator

from ...utils.limits import MAX_LENGTH, MAX_UNNAMED
from .group import Settings


class StartSettings(Settings):
    """How class layer and head are initialized."""

    head_init: Literal["auto", "text", "labels", "random"] = Field(
        "auto",
        description="text: closed form from class names, labels and unlabeled images, if text and image features share "
        "a space; labels: the same without names; random; auto: text if the backbone has its own text tower and the "
        "head is nested, otherwise random",
    )
    class_bits: int | None = Field(
        None,
        ge=1,
        le=MAX_LENGTH,
        description="closed form: how many leading bits encode the class; the rest tell images of a class apart; by "
        "default 32, or half of codes shorter than 64 bits, but at least 16; with few images half of longer codes, too",
    )
    unnamed_kinds: int | Literal["auto"] = Field(
        "auto",
        description="closed form: how many kinds of things the images show besides the named classes; auto: estimated "
        "from the images",
    )
    unlabeled: int = Field(
        100_000,
        ge=2,
        description="closed form: the most unlabeled images to use, from the archive or otherwise from the gallery",
    )

    @field_validator("unnamed_kinds", mode="before")
    @classmethod
    def _number_or_auto(cls, kinds: Any) -> Any:
        if kinds == "auto" or (isinstance(kinds, int) and not isinstance(kinds, bool) and 0 <= kinds <= MAX_UNNAMED):
            return kinds
        raise ValueError(f"unnamed_kinds must be a whole number of 0 to {MAX_UNNAMED}, or auto, not {kinds!r}")
