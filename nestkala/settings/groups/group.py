"""What all groups of settings have in common."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ...utils.errors import NestKALAError
from ...utils.validation import in_words


class Settings(BaseModel):
    """Settings that belong together, checked when they are made, and never changed.

    Raises:
        NestKALAError: unknown settings, with the nearest name, or impossible values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise NestKALAError(in_words(error, type(self).model_fields)) from None

    @field_validator("*")
    @classmethod
    def _possible_path(cls, value: Any) -> Any:
        if isinstance(value, Path) and "\0" in str(value):
            raise ValueError(f"{str(value)!r} is no path: it holds a NUL")
        return value
