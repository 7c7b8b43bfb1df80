"""The settings of the group `text`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ...backbone_names import check_name
from ...utils.errors import unknown_name
from .group import Settings


class TextSettings(Settings):
    """How classes are described, and which text tower embeds the descriptions."""

    anchors: str = Field(
        "text",
        description="text embeddings of the classes: text (from the backbone's own text tower), another backbone's "
        "(tiny or open_clip/MODEL:WEIGHTS), a .npy file of shape (classes, width), or orthonormal (random)",
    )
    prompts: tuple[str, ...] = Field(
        ("a photo of a {}.",), description="templates for class names; the embeddings of several are averaged"
    )
    class_words: dict[str, str] = Field(
        {}, description="words to use in prompts instead of a class's name, such as: automobile car"
    )
    descriptions: Path | None = Field(
        None, description="YAML or JSON file {class: sentence or list of sentences} to embed instead of prompts"
    )

    @property
    def has_text_tower(self) -> bool:
        """Whether a text tower makes the anchors, the backbone's own or another."""
        return self.anchors != "orthonormal" and not self.anchors.endswith(".npy")

    @model_validator(mode="after")
    def _possible_text(self) -> Self:
        if not self.prompts or any("{}" not in prompt for prompt in self.prompts):
            raise ValueError(f"every one of prompts needs {{}} where the class name goes, not {list(self.prompts)}")
        if self.has_text_tower and self.anchors != "text":
            if self.anchors != "tiny" and not self.anchors.startswith("open_clip/"):
                known = ["text", "tiny", "open_clip/MODEL:WEIGHTS", "FILE.npy", "orthonormal"]
                raise unknown_name("anchors", self.anchors, known)
            check_name(self.anchors)
        return self
