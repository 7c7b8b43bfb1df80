"""The settings of the group `training`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StrictInt, field_validator

from ...plugins import WITH_HSWD
from ..arguments import comma_separated
from .group import Settings


class TrainingSettings(Settings):
    """The loss and the optimizer."""

    loss: str = Field(
        "kiddo",
        description="loss at each length (see `nestkala list losses`), or NAME-hswd for the loss with HSWD as its "
        "quantization term",
    )
    loss_args: dict[str, float] = Field({}, description="more arguments for the loss, such as: margin 0.3")
    centers: Literal["nested", "independent"] = Field(
        "nested",
        description="losses with hash centers: nested centers share prefixes across lengths; independent ones are "
        "drawn for each length (random start only)",
    )
    alpha: float = Field(
        0.1,
        ge=0,
        allow_inf_nan=False,
        description="KIDDO: weight of the alignment with the text embeddings (0 or more)",
    )
    beta: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of the distance to the discrete codes (0 or more)"
    )
    gamma: float = Field(
        3.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of the pairwise similarity (0 or more)"
    )
    weighting: Literal["auto", "adaptive", "uniform", "halving"] = Field(
        "auto",
        description="weights of the lengths: adaptive balances their gradients, uniform weighs all alike, halving "
        "gives each half the weight of the next shorter; auto: adaptive for the nested head, uniform for others",
    )
    distillation: float = Field(
        1.0,
        ge=0,
        allow_inf_nan=False,
        description="weight of self-distillation from long to short codes; 0 turns it off",
    )
    epochs: int | None = Field(
        None,
        ge=0,
        description="passes over the training images; by default 100 from a random start and 0 from the closed form, "
        "which training did not improve in our measurements",
    )
    batch_size: int = Field(8, ge=1, description="images per step, over all processes together")
    lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="learning rate of SGD; by default 0.01 from a random start and 0.00003 from the closed form, which "
        "a higher rate would undo",
    )
    lr_drops: Annotated[tuple[StrictInt, ...], comma_separated(int, "EPOCHS,EPOCHS,...")] = Field(
        (), description="divide the learning rate by 10 after each of these epochs, in ascending order"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD (0 to below 1)")
    weight_decay: float = Field(1e-5, ge=0, allow_inf_nan=False, description="weight decay of SGD (0 or more)")
    max_grad_norm: float | None = Field(
        3.0,
        ge=0,
        allow_inf_nan=False,
        description="clip the gradient's norm to this value, which keeps training stable when features are large; 0 or "
        "None: no clipping, as published",
    )

    @property
    def base_loss(self) -> str:
        """Name of the loss, HSWD beside it left out."""
        return self.loss.removesuffix(WITH_HSWD)

    @field_validator("lr_drops")
    @classmethod
    def _ascending(cls, drops: tuple[int, ...]) -> tuple[int, ...]:
        if not all(earlier < later for earlier, later in pairwise((0, *drops))):
            raise ValueError(f"lr_drops must be ascending numbers of epochs, 1 or more, not {list(drops)}")
        return drops
