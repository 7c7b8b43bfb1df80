"""The settings of a training run: one typed schema for YAML files, command-line flags and the run folder."""

from collections.abc import Set as AbstractSet
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from ..plugins import check_loss, find_plugin
from .applicable import in_a_sentence, inapplicable
from .groups import (
    DataSettings,
    HeadSettings,
    MachineSettings,
    ModelSettings,
    OutputSettings,
    StartSettings,
    TextSettings,
    TrainingSettings,
)


class Config(  # pydantic begins with the fields of the last base
    MachineSettings,
    OutputSettings,
    TrainingSettings,
    StartSettings,
    HeadSettings,
    TextSettings,
    ModelSettings,
    DataSettings,
):
    """All settings of a run: a group for each of its parts, and what groups mean together.

    It is each of its groups, so that a setting has one name in YAML, on the command line and here: a function that
    takes `HeadSettings` is given a `Config`, and sees what is the head's alone.

    Raises:
        NestKALAError: unknown settings, impossible values, or one without effect.
    """

    refuses_without_effect: ClassVar[bool] = True

    config: str = Field(
        "digits",
        description="a shipped config (digits, photos, cifar10, nuswide21, mscoco, kalahash, mah) or the path of a "
        "YAML file; the default applies only if --data is digits",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**31,
        description="seed of all that is random: training images, their order, initial weights, orthonormal anchors",
    )

    def __init__(self, **values: Any) -> None:  # or type checkers miss those settings whose default is not by keyword
        super().__init__(**values)

    def replaced(self, **changes: Any) -> "Config":
        """The settings with these changes, checked as new ones are."""
        return Config(**{key: getattr(self, key) for key in self.model_fields_set} | changes)

    @property
    def starts_in_closed_form(self) -> bool:
        """Whether the head starts from class names, labels and images without labels, not at random."""
        return self.has_texts or self.head_init == "labels"

    @property
    def has_texts(self) -> bool:
        """Whether the start uses the class names' embeddings."""
        if self.head_init == "auto":
            return self.head == "nested" and self.anchors == "text" and not self.backbone.endswith(":random")
        return self.head_init == "text"

    @property
    def trains(self) -> bool:
        """Whether training on labeled images, if there are any, is asked for."""
        return self.labels_per_class != 0 and self.num_epochs > 0

    @property
    def chosen_adapter(self) -> Literal["clora", "lora", "prompts", "biases", "full", "none"]:
        """What adapts the last blocks: `adapter`, or what suits the start."""
        if self.adapter != "auto":
            return self.adapter
        return "none" if self.starts_in_closed_form or self.backbone.startswith("features:") else "clora"

    @property
    def num_adapted(self) -> int:
        """How many last blocks of the tower are adapted: none without an adapter."""
        return self.adapt_blocks if self.chosen_adapter != "none" else 0

    @property
    def num_epochs(self) -> int:
        """Passes over the training images: `epochs`, or what suits the start."""
        if self.epochs is not None:
            return self.epochs
        return 0 if self.starts_in_closed_form else 100

    @property
    def learning_rate(self) -> float:
        """Of SGD: `lr`, or what suits the start."""
        if self.lr is not None:
            return self.lr
        return 3e-5 if self.starts_in_closed_form else 0.01

    def learning_rate_in(self, epoch: int) -> float:
        """Of SGD in this epoch, 0 or more: `learning_rate`, divided by 10 for each of `lr_drops` that is past."""
        return self.learning_rate / 10 ** sum(epoch >= drop for drop in self.lr_drops)

    @property
    def normalizes_bits(self) -> bool:
        """Whether the head has BatchNorm."""
        return self.batch_norm and not self.starts_in_closed_form

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.backbone.startswith("features:") and (self.chosen_adapter != "none" or self.on_broken == "skip"):
            raise ValueError(f"{self.backbone} has nothing to adapt and no images: set adapter none, on_broken error")
        if self.anchors == "text" and self.backbone.startswith(("timm/", "features:")):
            raise ValueError(
                f"{self.backbone} has no text tower: set anchors to tiny, open_clip/MODEL:WEIGHTS, FILE.npy or "
                "orthonormal"
            )
        if self.normalizes_bits and self.batch_size == 1:
            raise ValueError("batch_size 1 cannot be normalized over the batch: set 2 or more, or --no-batch-norm")
        for key, value in {"shots": self.labels_per_class, "epochs": self.num_epochs}.items():
            if not value and not (self.has_texts if key == "shots" else self.starts_in_closed_form):
                raise ValueError(f"{key} is 0, which needs a start from text: set head_init text, or {key} 1 or more")
        if self.head_init in ("text", "labels") and self.head != "nested":
            raise ValueError(f"head_init {self.head_init} needs head nested, not {self.head}: set head_init random")
        if self.gallery == "labeled" and not self.labels_per_class:
            raise ValueError("gallery labeled is empty at 0 shots: set shots 1 or more, or gallery all")
        if self.head_init == "text" and not (self.anchors == "text" or self.anchors.endswith(".npy")):
            raise ValueError(f"head_init text needs anchors in the features' space: anchors text, not {self.anchors}")
        if self.centers == "independent" and self.starts_in_closed_form:
            raise ValueError(
                "centers independent needs a random start: a closed form places the head at nested centers"
            )
        if self.archive is not None and not self.starts_in_closed_form:
            raise ValueError("an archive is learned from by a start in closed form alone: set head_init text or labels")
        if self.refuses_without_effect:
            check_loss(self.loss)
            find_plugin("heads", self.head)
            if reasons := inapplicable(self):
                raise ValueError(in_a_sentence(self, reasons))
        return self


class Base(Config):
    """Settings for others to be put on top: what has no effect here may have one beside those."""

    refuses_without_effect: ClassVar[bool] = False
    _own: frozenset[str] = PrivateAttr(frozenset())

    @property
    def own(self) -> AbstractSet[str]:
        """Settings that a user's own file gives."""
        return self._own


def without_inapplicable(values: dict[str, Any], droppable: AbstractSet[str]) -> Config:
    """The settings with these values, less those droppable ones that have no effect beside the others.

    Raises:
        NestKALAError: impossible values, or one that has no effect and is not droppable.
    """
    while dropped := inapplicable(Base(**values)).keys() & droppable & values.keys():
        values = {key: value for key, value in values.items() if key not in dropped}
    return Config(**values)
