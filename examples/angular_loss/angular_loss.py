"""A custom hashing loss: the cosine of two codes should be 1, or at most a margin."""

from torch import Tensor

from nestkala.losses import HashLoss, shares_label


class AngularLoss(HashLoss):
    """mean over the batch's pairs of (1 - cos)^2 if they share a label, else max(cos - margin, 0)^2.

    Args:
        margin: cosine below which dissimilar codes cost nothing, -1 to 1.
    """

    paper = "examples/angular_loss"

    def __init__(self, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        directions = h / h.norm(dim=1, keepdim=True).clamp_min(1e-12)  # (B, b)
        cosines = directions @ directions.T  # (B, B)
        similar = shares_label(targets)
        together, apart = (1 - cosines).square(), (cosines - self.margin).relu().square()
        return {"angle": (similar * together + (1 - similar) * apart).mean()}
