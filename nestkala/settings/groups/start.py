"""The settings of the group `start`."""

from typing import Any, Literal

from pydantic import Field, field_validator

from ...utils.limits import MAX_LENGTH, MAX_UNNAMED
from .group import Settings


class StartSettings(Settings):
    """Where the head starts from."""

    head_init: Literal["auto", "text", "labels", "random"] = Field(
        "auto",
        description="start in closed form from class names, labels and images without labels (text: the anchors' space "
        "must be the features'), the same without names (labels), or random; auto: text where anchors are the "
        "backbone's own text tower's and the head is nested",
    )
    class_bits: int | None = Field(
        None,
        ge=1,
        le=MAX_LENGTH,
        description="closed form: how many of the first bits say what kind of thing an image shows; the rest say which "
        "one it is; by default 32, or half of a code of less than 64, but at least 16",
    )
    unnamed_kinds: int | Literal["auto"] = Field(
        "auto",
        description="closed form: how many kinds of things the images show beside the named classes; auto: as many as "
        "they seem to show, 0 where the classes are all there is",
    )
    unlabelled: int = Field(
        100_000,
        ge=2,
        description="closed form: images without labels that are used at most, of the archive or else of the gallery",
    )

    @field_validator("unnamed_kinds", mode="before")
    @classmethod
    def _number_or_auto(cls, kinds: Any) -> Any:
        if kinds == "auto" or (isinstance(kinds, int) and not isinstance(kinds, bool) and 0 <= kinds <= MAX_UNNAMED):
            return kinds
        raise ValueError(f"unnamed_kinds must be a whole number of 0 to {MAX_UNNAMED}, or auto, not {kinds!r}")
