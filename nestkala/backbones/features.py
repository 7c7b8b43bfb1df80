"""No backbone at all: features that somebody else computed go straight to the head."""

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
    """Takes rows of float32 numbers for images and gives them back."""

    @property
    def preparation(self) -> Callable[[bytes | Image, str], Tensor]:
        """The bytes of a float32 row -> (width,). Raises NestKALAError for another width, or numbers not finite."""
        return partial(_row, self.tower.feature_dim)


def load(width: int, num_adapted: int) -> Backbone:
    """The backbone of features (width,).

    Raises:
        NestKALAError: blocks to adapt, of which there are none.
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
            raise NestKALAError("own features have no backbone to adapt: say --adapter none")
        super().__init__(nn.Identity(), width)

    def unchecked_trunk(self, images: Tensor) -> Tensor:
        return images

    def embed(self, images: Tensor) -> Tensor:
        return images


def _row(width: int, data: bytes | Image, name: str) -> Tensor:
    if not isinstance(data, bytes) or len(data) % 4:
        raise NestKALAError(f"{name} is no row of float32 numbers, which features:{width} takes")
    row = torch.frombuffer(bytearray(data), dtype=torch.float32)
    if len(row) != width:
        raise NestKALAError(f"{name} has {len(row)} numbers, but features:{width} takes {width}")
    if not torch.isfinite(row).all():
        raise NestKALAError(f"{name} holds numbers that are not finite")
    return row


def _no_images(image: Image) -> Tensor:
    raise NestKALAError(f"an image of {image.size} pixels cannot be encoded: there is no backbone, only own features")
