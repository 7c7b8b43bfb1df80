"""OrthoHash: a single cosine loss makes codes that separate classes and are nearly binary."""

import math
from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import not_negative, positive
from .central import CentralLoss


class OrthoHash(CentralLoss):
    """Cross-entropy of scaled cosines to the classes' hash centers, with a margin on the image's own classes.

        mean_i -sum_k y_ik / |y_i| * log softmax_k(scale * margined(cos(h_i, c_k), y_ik))

    An image with several labels has each of them with equal probability; one without labels does not count.
    Subclasses define the margin.

    Source: OrthoHash (Hoe et al., NeurIPS 2021), cross-entropy with margin and, for several labels, label smoothing.

    Args:
        centers: one per class (C, b), entries -1 or +1 (`hash_centers`).
        margin: 0 or more.
        scale: scale of the cosines, above 0; None for sqrt(2) log(C - 1) as in the paper, with C at least 3, because
            the scale would otherwise be 0.

    Raises:
        ValueError: if an argument is out of range; on call, if the sizes of h, targets and centers do not match.
    """

    def __init__(self, centers: Tensor, margin: float = 0.2, scale: float | None = None) -> None:
        super().__init__(centers)
        self.margin = not_negative("margin", margin)
        usual = math.sqrt(2) * math.log(max(len(centers), 3) - 1)
        self.scale = usual if scale is None else positive("scale", scale)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        log_p = F.log_softmax(self.scale * self.margined(self.cosines(h, targets), targets), dim=1)  # (B, C)
        labels = targets.sum(dim=1, keepdim=True)  # (B, 1)
        log_likelihood = (targets / labels.clamp(min=1) * log_p).sum()
        return {"classification": -log_likelihood / (labels > 0).sum().clamp(min=1)}

    @abstractmethod
    def margined(self, cosines: Tensor, targets: Tensor) -> Tensor:
        """The cosines (B, C), reduced by the margin for an image's own classes."""


class OrthoHashCos(OrthoHash):
    """`OrthoHash` with the margin on the cosine: cos(h_i, c_k) - margin * y_ik.

    Example:
        >>> loss = OrthoHashCos(hash_centers(10, 16, torch.Generator().manual_seed(0)))
        >>> value = loss(h, targets, indices)  # h (B, 16), targets (B, 10)
    """

    paper = "OrthoHash, cosine margin (Hoe et al., NeurIPS 2021)"

    def margined(self, cosines: Tensor, targets: Tensor) -> Tensor:
        return cosines - self.margin * targets


class OrthoHashArc(OrthoHash):
    """`OrthoHash` with the margin on the angle: cos(theta_ik + margin * y_ik), cos theta_ik = cos(h_i, c_k).

    Angles that exceed pi with the margin are not treated specially. If h points exactly at its center, or exactly
    away from it, the angle has a kink, and h gets no gradient from the angle's sine.

    Example:
        >>> loss = OrthoHashArc(hash_centers(10, 16, torch.Generator().manual_seed(0)))
        >>> value = loss(h, targets, indices)  # h (B, 16), targets (B, 10)
    """

    paper = "OrthoHash, angular margin (Hoe et al., NeurIPS 2021)"

    def margined(self, cosines: Tensor, targets: Tensor) -> Tensor:
        squared = (1 - cosines) * (1 + cosines)
        aside = squared > torch.finfo(squared.dtype).eps  # otherwise only the cosine's rounding error is left
        sines = torch.where(aside, squared, 1).sqrt() * aside
        turn = self.margin * targets
        return cosines * turn.cos() - sines * turn.sin()
