"""A backbone that does nothing: precomputed features go straight to the head."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from PIL.Image import Image
from torch import Tensor, nn

from ..utils.errors import NestKALAError
from .contract import Backbone
from .tower import FixedTower


@dataclass
class FeatureBackbone(Backbone):
    """Takes rows of float32 numbers instead of images and returns them unchanged."""

    @property
    def preparation(self) -> Callable[[bytes | Image, str], Tensor]:
        """The bytes of a float32 row -> (width,). Raises NestKALAError if the width is wrong or a number not finite."""
        return partial(_row, self.tower.feature_dim)


def load(width: int, num_adapted: int) -> Backbone:
    """The backbone for features (width,).

    Raises:
        NestKALAError: if there are blocks to adapt, since it has none.
    """
    return FeatureBackbone(
        name=f"features:{width}",
        tower=FeatureTower(width, num_adapted),
        preprocess=_no_images,
        preprocessing=f"features of width {width}",
        embed_text=None,
    )


class FeatureTower(FixedTower):
    """Trunk and tail that change nothing, in full precision."""

    def __init__(self, width: int, num_adapted: int) -> None:
        if num_adapted:
            raise NestKALAError("features have no backbone to adapt: use --adapter none")
        super().__init__(nn.Identity(), width)

    def unchecked_trunk(self, images: Tensor) -> Tensor:
        return images

    def embed(self, images: Tensor) -> Tensor:
        return images


def _row(width: int, data: bytes | Image, name: str) -> Tensor:
    if not isinstance(data, bytes) or len(data) % 4:
        raise NestKALAError(f"{name} is not a row of float32 numbers, as features:{width} expects")
    row = torch.frombuffer(bytearray(data), dtype=torch.float32)
    if len(row) != width:
        raise NestKALAError(f"{name} has {len(row)} numbers, but features:{width} expects {width}")
    if not torch.isfinite(row).all():
        raise NestKALAError(f"{name} contains numbers that are not finite")
    return row


def _no_images(image: Image) -> Tensor:
    raise NestKALAError(f"an image of {image.size} pixels cannot be encoded: there is no backbone, only features")
