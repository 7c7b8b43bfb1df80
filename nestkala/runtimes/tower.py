"""A tower that another library runs."""

import torch
from torch import Tensor, nn

from ..backbones.tower import FixedTower
from .libraries import Compute

IMAGES_A_CALL = 8
"""Activations of this many images fit in the CPU cache; larger calls are slower and take more memory."""


class RuntimeTower(FixedTower):
    """The exported part of a model: images (B, 3, H, W) -> adapted features (B, feature_dim), or tokens, unrounded."""

    def __init__(self, compute: Compute, feature_dim: int) -> None:
        super().__init__(nn.Identity(), feature_dim)
        self._compute = compute

    def unchecked_trunk(self, images: Tensor) -> Tensor:
        return self.embed(images)

    def embed(self, images: Tensor) -> Tensor:
        return torch.cat([self._compute(part) for part in images.split(IMAGES_A_CALL)])
