"""The interface of adapters of a tower's last blocks."""

from abc import ABC
from typing import ClassVar

from torch import Tensor, nn

from ..backbones import BlockAdapter


class Adapter(nn.Module, ABC):
    """A small number of trainable parameters next to a frozen tower's last blocks.

    A subclass overrides one or both of the methods.

    Attributes:
        uses_anchors: whether it uses the classes' text anchors, mapped to the output width of the projections.
        num_blocks: number of adapted blocks.
    """

    uses_anchors: ClassVar[bool] = False

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.num_blocks = num_blocks

    def bind(self, directions: Tensor | None = None) -> list[BlockAdapter] | None:  # noqa: ARG002
        """The adapters of projections, one per block, given anchors in their output space (C, d'); None if none."""
        return None

    def prompts(self) -> list[Tensor] | None:
        """Tokens (p, d) appended to the image's own, one set per block; None if there are none."""
        return None
