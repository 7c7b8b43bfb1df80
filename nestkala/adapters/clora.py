"""CLoRA: class-calibration low-rank adaptation, with the classes' text embeddings as directions."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones import BlockAdapter, Projection
from .projections import ProjectionAdapter


class CLoRA(ProjectionAdapter):
    """Low-rank updates of projections, per image, along the class directions that match the image best.

    For a frozen projection W and an image, let x_mean be the mean of its patch tokens at the input of W. Take the r
    class directions with the largest cosine to x_mean, k_1..k_r, in descending order. With trainable q_1..q_r

        out = W x + scale * sum_i k_i (q_i . x)

    computed as two thin products; the d x d update of an image is never built. The q_i are learned, one set per
    projection, and so is the layer that produces the directions, through the rows that are picked.

    If W maps to another width d', the directions are in its output space, where they are added, and cosines are to
    W x_mean, the mean of the frozen projection's output (including its bias); the q_i have width d. In a transformer
    d' is d, and cosines are to x_mean, as published.

    Source: KALAHash (AAAI 2025) eq. 4-7.

    Args:
        width: d, the width of the tokens.
        num_blocks: number of adapted blocks.
        projections: some of "q", "k", "v", "o", or "head".
        rank: r, at most the number of classes.
        scale: eta.
        num_prefix_tokens: number of class and register tokens, which are excluded from the mean.
        init: "linear" initializes q like nn.Linear, so the adapted model does not start as the frozen one; with
            "zero" it does.

    Raises:
        ValueError: if there is no projection, or an unknown one.
    """

    uses_anchors = True

    def __init__(
        self,
        width: int,
        num_blocks: int,
        projections: Sequence[Projection] = ("k", "v"),
        rank: int = 1,
        scale: float = 1.0,
        num_prefix_tokens: int = 1,
        init: Literal["linear", "zero"] = "linear",
    ) -> None:
        super().__init__(num_blocks, projections)
        self.rank, self.scale, self.num_prefix_tokens = rank, scale, num_prefix_tokens
        bound = width**-0.5 if init == "linear" else 0.0
        self.q = nn.ParameterList(
            torch.empty(len(self.projections), rank, width).uniform_(-bound, bound) for _ in range(num_blocks)
        )

    def bind(self, directions: Tensor | None = None) -> list[BlockAdapter]:
        """One adapter per block, given the class directions (C, d'), C at least the rank. ValueError without them."""
        if directions is None:
            raise ValueError("CLoRA needs directions: the classes' text anchors as tokens, (C, width)")
        return [partial(self.deltas, partial(self._update, q, directions)) for q in self.q]

    def _update(self, q: Tensor, directions: Tensor, places: list[int], x: Tensor, projected: Tensor) -> list[Tensor]:
        picked = self.scale * self._pick(projected, directions)  # (B, r, d')
        along = F.linear(x, torch.cat([q[place] for place in places]))  # (B, t, p * r)
        return [torch.bmm(own, picked) for own in along.split(self.rank, dim=2)]

    def _pick(self, projected: Tensor, directions: Tensor) -> Tensor:
        with torch.no_grad():
            mean = projected[:, self.num_prefix_tokens :].mean(dim=1)  # (B, d')
            closest = (
                F.linear(mean, F.normalize(directions, dim=1).to(mean.dtype)).topk(self.rank, dim=1).indices
            )  # (B, r)
        return directions[closest]  # (B, r, d')
