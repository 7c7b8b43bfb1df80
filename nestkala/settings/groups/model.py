"""The settings of the group `model`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ...backbone_names import check_name
from ...utils.limits import MAX_PROMPT_LENGTH, MAX_RANK
from ..arguments import comma_separated
from .group import Settings


class ModelSettings(Settings):
    """The backbone, and what adapts its last blocks."""

    backbone: str = Field(
        "auto",
        description="photo (EfficientNet-Lite0, installed with this), tiny (built in, 32x32 pixels), "
        "open_clip/MODEL:WEIGHTS (such as open_clip/ViT-B-32-quickgelu:openai) or timm/MODEL[:WEIGHTS]; WEIGHTS is a "
        "tag, for open_clip also a file, or random; open_clip/MODEL/TAG:FILE is a file of a "
        "tag's weights; features:WIDTH is none at all: data holds own features; auto: "
        "features where data holds them, tiny where images are as small as digits, and else photo",
    )
    adapter: Literal["auto", "clora", "lora", "prompts", "biases", "full", "none"] = Field(
        "auto",
        description="what adapts the last blocks: clora, lora, learned prompts, their biases, all of their weights, or "
        "nothing; auto: clora for training from a random start, else nothing",
    )
    adapt_blocks: int = Field(1, ge=1, description="how many last blocks are adapted (1 or more)")
    projections: Annotated[tuple[Literal["q", "k", "v", "o"], ...], comma_separated(str, "{q,k,v,o},...")] = Field(
        ("k", "v"),
        min_length=1,
        description="attention projections that are adapted; photo has none, and its last convolution is",
    )
    rank: int = Field(
        1,
        ge=1,
        le=MAX_RANK,
        description=f"clora: directions per image, at most the number of classes; lora: rank (1 to {MAX_RANK})",
    )
    prompt_length: int = Field(
        8, ge=1, le=MAX_PROMPT_LENGTH, description=f"prompts: learned tokens a block (1 to {MAX_PROMPT_LENGTH})"
    )
    adapter_scale: float = Field(
        1.0, allow_inf_nan=False, description="clora, lora: the adapter's strength; 0 is the frozen model"
    )
    adapter_init: Literal["linear", "zero"] = Field(
        "linear", description="clora: start q like nn.Linear, or at 0, which is the frozen model"
    )

    @model_validator(mode="after")
    def _possible_model(self) -> Self:
        if len(set(self.projections)) < len(self.projections):
            raise ValueError(f"projections has one twice: {','.join(self.projections)}")
        if self.backbone != "auto":
            check_name(self.backbone)
        return self
