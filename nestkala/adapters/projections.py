"""Base class for adapters that add to projections."""

from collections.abc import Callable, Sequence
from typing import get_args

from torch import Tensor

from ..backbones import Projection
from .contract import Adapter


class ProjectionAdapter(Adapter):
    """An `Adapter` that adds to the outputs of some projections.

    Args:
        num_blocks: number of adapted blocks.
        projections: some of "q", "k", "v", "o", or "head".

    Raises:
        ValueError: if there is no projection, or an unknown one.
    """

    def __init__(self, num_blocks: int, projections: Sequence[Projection]) -> None:
        super().__init__(num_blocks)
        self.projections = tuple(projections)
        if not self.projections or not set(self.projections) <= set(get_args(Projection)):
            raise ValueError(f"projections must be one or more of q, k, v, o, head, not {list(projections)}")

    def deltas(
        self,
        update: Callable[[list[int], Tensor, Tensor], Sequence[Tensor]],
        x: Tensor,
        names: Sequence[Projection],
        projected: Tensor | None = None,
        /,
    ) -> dict[Projection, Tensor]:
        """The updates to add to the adapted ones of the named projections: a `BlockAdapter`, except for `update`.

        `update` takes the positions of the projections in `projections`, their input (B, t, d), and tokens (B, t, d')
        in their output space (`projected`, or else the input); it returns (B, t, d') for each position.
        """
        places = [place for place, name in enumerate(self.projections) if name in names]
        if not places:
            return {}
        updates = update(places, x, x if projected is None else projected)
        return dict(zip((self.projections[place] for place in places), updates, strict=True))
