"""What adapters that add to attention projections share."""

from collections.abc import Callable, Sequence

from torch import Tensor

from ..backbones import Projection
from .contract import Adapter


class ProjectionAdapter(Adapter):
    """An `Adapter` that adds something to some of the projections.

    Args:
        num_blocks: how many blocks are adapted.
        projections: which of "q", "k", "v", "o".

    Raises:
        ValueError: a projection other than these four, or none.
    """

    def __init__(self, num_blocks: int, projections: Sequence[Projection]) -> None:
        super().__init__(num_blocks)
        self.projections = tuple(projections)
        if not self.projections or not set(self.projections) <= {"q", "k", "v", "o"}:
            raise ValueError(f"projections must be of q, k, v, o, at least one, not {list(projections)}")

    def deltas(
        self, update: Callable[[list[int], Tensor], Tensor], x: Tensor, names: Sequence[Projection]
    ) -> dict[Projection, Tensor]:
        """What to add to those of the named projections that are adapted.

        `update` takes their places among `projections` and their input (B, t, d), and gives (places, B, t, d).
        """
        places = [place for place, name in enumerate(self.projections) if name in names]
        if not places:
            return {}
        return dict(zip((self.projections[place] for place in places), update(places, x), strict=True))
