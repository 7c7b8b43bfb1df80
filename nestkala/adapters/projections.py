"""What adapters that add to projections share."""

from collections.abc import Callable, Sequence
from typing import get_args

from torch import Tensor

from ..backbones import Projection
from .contract import Adapter


class ProjectionAdapter(Adapter):
    """An `Adapter` that adds something to some of the projections.

    Args:
        num_blocks: how many blocks are adapted.
        projections: which of "q", "k", "v", "o", or "head".

    Raises:
        ValueError: a projection other than these, or none.
    """

    def __init__(self, num_blocks: int, projections: Sequence[Projection]) -> None:
        super().__init__(num_blocks)
        self.projections = tuple(projections)
        if not self.projections or not set(self.projections) <= set(get_args(Projection)):
            raise ValueError(f"projections must be of q, k, v, o, head, at least one, not {list(projections)}")

    def deltas(
        self,
        update: Callable[[list[int], Tensor, Tensor], Sequence[Tensor]],
        x: Tensor,
        names: Sequence[Projection],
        projected: Tensor | None = None,
        /,
    ) -> dict[Projection, Tensor]:
        """What to add to those of the named projections that are adapted: a `BlockAdapter`, but for `update`.

        `update` takes their places among `projections`, their input (B, t, d), and tokens (B, t, d') in the space of
        their output, which are `projected`, or else the input; it gives (B, t, d') for each place.
        """
        places = [place for place, name in enumerate(self.projections) if name in names]
        if not places:
            return {}
        updates = update(places, x, x if projected is None else projected)
        return dict(zip((self.projections[place] for place in places), updates, strict=True))
