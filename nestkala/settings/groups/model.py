"""The settings of the group `model`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...backbone_names import check_name
from ...utils.limits import MAX_PROMPT_LENGTH, MAX_RANK
from ..arguments import comma_separated
from .group import Settings


class ModelSettings(Settings):
    """The backbone, and how its last blocks are adapted."""

    backbone: str = Field(
        "auto",
        description="photo (EfficientNet-Lite0, included), tiny (for 32x32 pixels, included), open_clip/MODEL:WEIGHTS "
        "(such as open_clip/ViT-B-32-quickgelu:openai) or timm/MODEL[:WEIGHTS], where WEIGHTS is a tag, random, or for "
        "open_clip a file (open_clip/MODEL/TAG:FILE for a file with a tag's settings); features:WIDTH if the data are "
        "features already; auto: features, tiny or photo, whichever suits the data",
    )
    adapter: Literal["auto", "clora", "lora", "prompts", "biases", "full", "none"] = Field(
        "auto",
        description="how to adapt the last blocks: clora, lora, learned prompts, biases only, all weights (full), or "
        "not at all; auto: clora from a random start, none from the closed form",
    )
    adapt_blocks: int = Field(1, ge=1, description="number of last blocks to adapt")
    projections: Annotated[tuple[Literal["q", "k", "v", "o"], ...], comma_separated(str, "{q,k,v,o},...")] = Field(
        ("k", "v"),
        min_length=1,
        description="attention projections to adapt; photo has no attention: its last convolution is adapted instead",
    )
    rank: int = Field(
        1,
        ge=1,
        le=MAX_RANK,
        description=f"clora: text directions per image, at most one per class; lora: rank (1 to {MAX_RANK})",
    )
    prompt_length: int = Field(
        8, ge=1, le=MAX_PROMPT_LENGTH, description=f"prompts: learned tokens per block (1 to {MAX_PROMPT_LENGTH})"
    )
    adapter_scale: float = Field(
        1.0, allow_inf_nan=False, description="clora, lora: factor on the update; 0 leaves the model frozen"
    )
    adapter_init: Literal["linear", "zero"] = Field(
        "linear", description="clora: initialize q like nn.Linear, or at 0, which starts at the frozen model"
    )

    @model_validator(mode="after")
    def _possible_model(self) -> Self:
        if len(set(self.projections)) < len(self.projections):
            raise ValueError(f"projections has one twice: {','.join(self.projections)}")
        if self.backbone != "auto":
            check_name(self.backbone)
        return self
