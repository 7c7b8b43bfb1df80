"""What every adapter of a tower's last blocks offers."""

from abc import ABC
from typing import ClassVar

from torch import Tensor, nn

from ..backbones import BlockAdapter


class Adapter(nn.Module, ABC):
    """A few trainable numbers beside a frozen tower's last blocks.

    A subclass overrides one of the methods, or both.

    Attributes:
        uses_anchors: whether it takes the classes' text anchors, mapped to the width of what the projections give.
        num_blocks: how many blocks it adapts.
    """

    uses_anchors: ClassVar[bool] = False

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.num_blocks = num_blocks

    def bind(self, directions: Tensor | None = None) -> list[BlockAdapter] | None:  # noqa: ARG002
        """What joins the projections, one a block, given the anchors in their output's space (C, d'); None: nothing."""
        return None

    def prompts(self) -> list[Tensor] | None:
        """Tokens (p, d) that stand behind the image's own in each block, one a block; None: none."""
        return None
