"""LoRA: low-rank updates of projections, the same for every image."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import BlockAdapter, Projection
from .projections import ProjectionAdapter


class LoRA(ProjectionAdapter):
    """out = W x + scale * B (A x), with A (r, d) initialized like nn.Linear's weight, and B (d', r) zero.

    Source: LoRA (Hu et al., ICLR 2022) eq. 3; `scale` is its alpha / r.

    Args:
        width: d, the width of the tokens.
        num_blocks: number of adapted blocks.
        projections: some of "q", "k", "v", "o", or "head".
        rank: r, 1 or more.
        scale: strength; 0 gives the frozen model.
        projected_width: d', the output width of the projections; None for d.

    Raises:
        ValueError: if there is no projection, or an unknown one.
    """

    def __init__(
        self,
        width: int,
        num_blocks: int,
        projections: Sequence[Projection] = ("k", "v"),
        rank: int = 1,
        scale: float = 1.0,
        projected_width: int | None = None,
    ) -> None:
        super().__init__(num_blocks, projections)
        self.scale = scale
        bound, number = width**-0.5, len(self.projections)
        self.down = nn.ParameterList(
            torch.empty(number, rank, width).uniform_(-bound, bound) for _ in range(num_blocks)
        )
        self.up = nn.ParameterList(torch.zeros(number, projected_width or width, rank) for _ in range(num_blocks))

    def bind(self, directions: Tensor | None = None) -> list[BlockAdapter]:  # noqa: ARG002
        return [partial(self.deltas, partial(self._update, *pair)) for pair in zip(self.down, self.up, strict=True)]

    def _update(self, down: Tensor, up: Tensor, places: list[int], x: Tensor, _: Tensor) -> list[Tensor]:
        return [F.linear(F.linear(x, down[place]), self.scale * up[place]) for place in places]
