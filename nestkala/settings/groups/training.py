"""The settings of the group `training`."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, StrictInt, field_validator

from ...plugins import WITH_HSWD
from ..arguments import comma_separated
from .group import Settings


class TrainingSettings(Settings):
    """The objective, and how it is optimised."""

    loss: str = Field(
        "kiddo",
        description="objective at every length, a name that `nestkala list losses` shows, or NAME-hswd: with HSWD for "
        "quantisation; dpsh is kiddo without discrete codes and text",
    )
    loss_args: dict[str, float] = Field({}, description="further arguments of the loss, such as margin 0.3")
    centres: Literal["nested", "independent"] = Field(
        "nested",
        description="losses with hash centres: a shorter length's are prefixes of the longest's, or drawn for "
        "themselves (random start only)",
    )
    alpha: float = Field(
        0.1, ge=0, allow_inf_nan=False, description="KIDDO: weight of the alignment with text (0 or more)"
    )
    beta: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of the distance to the codes (0 or more)"
    )
    gamma: float = Field(3.0, ge=0, allow_inf_nan=False, description="KIDDO: weight of pairwise similarity (0 or more)")
    weighting: Literal["auto", "adaptive", "uniform", "halving"] = Field(
        "auto",
        description="balance the lengths' gradients, weigh all lengths alike, or each half of the next shorter; auto: "
        "adaptive under the nested head, uniform under flat and cascade",
    )
    distillation: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="weight of long-to-short self-distillation (0: none)"
    )
    epochs: int | None = Field(
        None,
        ge=0,
        description="passes over the training images; by default 100 from a random start, none from the closed form, "
        "to which training added nothing where it was measured (docs/results_photos.md)",
    )
    batch_size: int = Field(8, ge=1, description="images a step, over all processes together (1 or more)")
    lr: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="learning rate of SGD (above 0); by default 0.01 from a random start, 0.00003 from text, which "
        "a higher one forgets",
    )
    lr_drops: Annotated[tuple[StrictInt, ...], comma_separated(int, "EPOCHS,EPOCHS,...")] = Field(
        (), description="divide the learning rate by 10 after each of these numbers of epochs (1 or more, ascending)"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD (0 to below 1)")
    weight_decay: float = Field(1e-5, ge=0, allow_inf_nan=False, description="of SGD (0 or more)")
    max_grad_norm: float | None = Field(
        3.0,
        ge=0,
        allow_inf_nan=False,
        description="scale the gradient of all that is trained down to this Euclidean norm where it is longer, or "
        "features of large scale make training collapse; 0 or None: never, as published",
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
