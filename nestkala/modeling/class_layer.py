"""What stands between features and the hash layer where the start is in closed form."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WIDTH = 384
"""Principal directions of the features that are kept; on photographs more did not help."""

SHARPNESS = 13.0
"""Of the class probabilities. Sharper ones make better codes of 8 bits, softer ones better codes of 64."""


class ClassLayer(nn.Module):
    """Features (B, d) -> unit features (B, k) and class probabilities (B, C), side by side (B, k + C).

    A linear hash layer on features alone cannot give many classes good short codes: 16 hyperplanes do not separate 100
    classes. On class probabilities it can, since any word can then be the code of a class. The unit features serve
    what the classes leave open.

        u = normalize((x - mean) basis),    p = softmax(SHARPNESS cos(u whitening, prototypes))

    Args:
        in_features: d.
        num_classes: C.

    Attributes:
        width: k, the smaller of d and `MAX_WIDTH`.
        out_features: k + C.
    """

    mean: Tensor
    basis: Tensor
    whitening: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.width = min(in_features, MAX_WIDTH)
        self.out_features = self.width + num_classes
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("basis", torch.eye(in_features, self.width))
        self.register_buffer("whitening", torch.eye(self.width))
        self.prototypes = nn.Parameter(torch.zeros(num_classes, self.width))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) -> (B, k + C), entries in [-1, 1]."""
        return self._with_probabilities(self.units(features))

    def towards(self, directions: Tensor) -> Tensor:
        """What images would give that lie in these directions (B, d) from the mean, (B, k + C)."""
        return self._with_probabilities(F.normalize(directions @ self.basis, dim=1))

    def units(self, features: Tensor) -> Tensor:
        """Features (B, d) -> their principal components (B, k), of unit norm."""
        return F.normalize((features - self.mean) @ self.basis, dim=1)

    def probabilities(self, units: Tensor) -> Tensor:
        """What `units` gave -> class probabilities (B, C)."""
        cosines = F.normalize(units @ self.whitening, dim=1) @ F.normalize(self.prototypes, dim=1).T
        return torch.softmax(SHARPNESS * cosines, dim=1)

    def typical(self) -> Tensor:
        """What an image in the midst of each class would give, (C, k + C)."""
        midst = torch.linalg.solve(self.whitening, self.prototypes, left=False)
        return self._with_probabilities(F.normalize(midst, dim=1))

    def _with_probabilities(self, units: Tensor) -> Tensor:
        return torch.cat([units, self.probabilities(units)], dim=1)
