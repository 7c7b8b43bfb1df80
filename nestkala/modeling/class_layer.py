"""The layer between features and hash layer in a closed-form start."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_WIDTH = 384
"""Maximum number of principal directions kept; on photographs more did not help."""

SHARPNESS = 13.0
"""Sharpness of the class probabilities. Higher values make better 8-bit codes, lower values better 64-bit codes."""


class ClassLayer(nn.Module):
    """Features (B, d) -> unit features (B, k) and class probabilities (B, C), concatenated to (B, k + C).

    A linear hash layer on features alone cannot give many classes good short codes: 16 hyperplanes do not separate 100
    classes. On class probabilities it can, because any word can be the code of a class. The unit features capture what
    the classes leave open.

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
        """The output for images in these directions (B, d) from the mean, (B, k + C)."""
        return self._with_probabilities(F.normalize(directions @ self.basis, dim=1))

    def units(self, features: Tensor) -> Tensor:
        """Features (B, d) -> their principal components (B, k), of unit norm."""
        return F.normalize((features - self.mean) @ self.basis, dim=1)

    def probabilities(self, units: Tensor) -> Tensor:
        """Output of `units` -> class probabilities (B, C)."""
        cosines = F.normalize(units @ self.whitening, dim=1) @ F.normalize(self.prototypes, dim=1).T
        return torch.softmax(SHARPNESS * cosines, dim=1)

    def typical(self) -> Tensor:
        """The output for a typical image of each class, (C, k + C)."""
        midst = torch.linalg.solve(self.whitening, self.prototypes, left=False)
        return self._with_probabilities(F.normalize(midst, dim=1))

    def _with_probabilities(self, units: Tensor) -> Tensor:
        return torch.cat([units, self.probabilities(units)], dim=1)
