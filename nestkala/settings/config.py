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


class Config(  # pydantic puts the fields of the last base first
    MachineSettings,
    OutputSettings,
    TrainingSettings,
    StartSettings,
    HeadSettings,
    TextSettings,
    ModelSettings,
    DataSettings,
):
    """All settings of a run: one group for each of its parts, plus checks across groups.

    It inherits from every group, so that a setting has the same name in YAML, on the command line and here. A function
    that takes `HeadSettings` can be given a `Config`, and sees only the head's settings.

    Raises:
        NestKALAError: if a setting is unknown, has an impossible value, or has no effect.
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
        description="seed for everything random: training images, their order, initial weights, orthonormal anchors",
    )

    def __init__(self, **values: Any) -> None:  # otherwise type checkers miss settings whose default is not a keyword
        super().__init__(**values)

    def replaced(self, **changes: Any) -> "Config":
        """A copy of the settings with these changes, checked like new ones."""
        return Config(**{key: getattr(self, key) for key in self.model_fields_set} | changes)

    @property
    def starts_in_closed_form(self) -> bool:
        """Whether the head starts from class names, labels and unlabeled images instead of at random."""
        return self.has_texts or self.head_init == "labels"

    @property
    def has_texts(self) -> bool:
        """Whether the start uses embeddings of the class names."""
        if self.head_init == "auto":
            return self.head == "nested" and self.anchors == "text" and not self.backbone.endswith(":random")
        return self.head_init == "text"

    @property
    def trains(self) -> bool:
        """Whether the settings ask for training on labeled images, if there are any."""
        return self.labels_per_class != 0 and self.num_epochs > 0

    @property
    def chosen_adapter(self) -> Literal["clora", "lora", "prompts", "biases", "full", "none"]:
        """The adapter of the last blocks: `adapter`, or one that suits the start."""
        if self.adapter != "auto":
            return self.adapter
        return "none" if self.starts_in_closed_form or self.backbone.startswith("features:") else "clora"

    @property
    def num_adapted(self) -> int:
        """How many of the tower's last blocks are adapted: none without an adapter."""
        return self.adapt_blocks if self.chosen_adapter != "none" else 0

    @property
    def num_epochs(self) -> int:
        """Passes over the training images: `epochs`, or a number that suits the start."""
        if self.epochs is not None:
            return self.epochs
        return 0 if self.starts_in_closed_form else 100

    @property
    def learning_rate(self) -> float:
        """Learning rate of SGD: `lr`, or one that suits the start."""
        if self.lr is not None:
            return self.lr
        return 3e-5 if self.starts_in_closed_form else 0.01

    def learning_rate_in(self, epoch: int) -> float:
        """Learning rate of SGD in this epoch, 0 or more: divided by 10 for each of `lr_drops` that has passed."""
        return self.learning_rate / 10 ** sum(epoch >= drop for drop in self.lr_drops)

    @property
    def normalizes_bits(self) -> bool:
        """Whether the head has BatchNorm."""
        return self.batch_norm and not self.starts_in_closed_form

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.backbone.startswith("features:") and (self.chosen_adapter != "none" or self.on_broken == "skip"):
            raise ValueError(
                f"{self.backbone} has nothing to adapt and no images: set adapter to none and on_broken to error"
            )
        if self.anchors == "text" and self.backbone.startswith(("timm/", "features:")):
            raise ValueError(
                f"{self.backbone} has no text tower: set anchors to tiny, open_clip/MODEL:WEIGHTS, FILE.npy or "
                "orthonormal"
            )
        if self.normalizes_bits and self.batch_size == 1:
            raise ValueError("a batch of 1 cannot be batch-normalized: set batch_size to 2 or more, or --no-batch-norm")
        for key, value in {"shots": self.labels_per_class, "epochs": self.num_epochs}.items():
            if not value and not (self.has_texts if key == "shots" else self.starts_in_closed_form):
                raise ValueError(
                    f"{key} is 0, which needs a start from text: set head_init to text, or {key} to 1 or more"
                )
        if self.head_init in ("text", "labels") and self.head != "nested":
            raise ValueError(f"head_init {self.head_init} needs head nested, not {self.head}: set head_init to random")
        if self.gallery == "labeled" and not self.labels_per_class:
            raise ValueError("gallery labeled is empty at 0 shots: set shots to 1 or more, or gallery to all")
        if self.head_init == "text" and not (self.anchors == "text" or self.anchors.endswith(".npy")):
            raise ValueError(
                f"head_init text needs anchors in the features' space: set anchors to text, not {self.anchors}"
            )
        if self.centers == "independent" and self.starts_in_closed_form:
            raise ValueError("centers independent needs a random start: a closed-form start uses nested centers")
        if self.archive is not None and not self.starts_in_closed_form:
            raise ValueError("only a closed-form start learns from an archive: set head_init to text or labels")
        if self.refuses_without_effect:
            check_loss(self.loss)
            find_plugin("heads", self.head)
            if reasons := inapplicable(self):
                raise ValueError(in_a_sentence(self, reasons))
        return self


class Base(Config):
    """Settings as a base for others: a setting without effect here may have one once others are applied."""

    refuses_without_effect: ClassVar[bool] = False
    _own: frozenset[str] = PrivateAttr(frozenset())

    @property
    def own(self) -> AbstractSet[str]:
        """Settings from a user's own file."""
        return self._own


def without_inapplicable(values: dict[str, Any], droppable: AbstractSet[str]) -> Config:
    """The settings with these values, dropping `droppable` ones that have no effect given the others.

    Raises:
        NestKALAError: if a value is impossible, or a setting has no effect and is not droppable.
    """
    while dropped := inapplicable(Base(**values)).keys() & droppable & values.keys():
        values = {key: value for key, value in values.items() if key not in dropped}
    return Config(**values)
