"""Prepare encoded images for a network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from ..utils.errors import NestKALAError, one_line
from .decoding import decode_image

LONGEST = 16
"""For images longer than this many times their shorter side, only the middle is scaled if only that is kept."""


@dataclass(frozen=True)
class CentralSquare:
    """RGB image -> central square (3, size, size), float32, with each channel (x / 255 - mean) / std.

    Bit-identical to torchvision's Resize, CenterCrop, ToTensor and Normalize, whose import takes longer than a search.
    It uses NumPy, because with torch every decoding thread would start threads of its own.

    Args:
        side: size in pixels to scale the shorter side to (bicubic), at least `size`.
        size: size in pixels of the central square.
        mean, std: mean and standard deviation of every channel.
    """

    side: int
    size: int
    mean: float
    std: float

    def __call__(self, image: Image) -> Tensor:
        shorter = min(image.size)
        width, height = (self.side if length == shorter else int(self.side * length / shorter) for length in image.size)
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        box = (left, top, left + self.size, top + self.size)
        pixels = np.asarray(image.resize((width, height), Resampling.BICUBIC).crop(box))  # (H, W, 3)
        scaled = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
        for step, value in ((np.divide, 255), (np.subtract, self.mean), (np.divide, self.std)):
            step(scaled, np.float32(value), out=scaled)
        return torch.from_numpy(scaled)


@dataclass(frozen=True)
class Preparation:
    """Encoded or decoded image -> (3, H, W).

    The cost is bounded by the pixels of the image and of the result: an image of 1,000,000 x 1 pixels is not scaled up
    as a whole until its shorter side fits. JPEGs much larger than the result are decoded at a reduced scale.

    Args:
        preprocess: RGB image -> (3, H, W): a `CentralSquare`, or a library's pipeline.
    """

    preprocess: Callable[[Image], Tensor]

    def __call__(self, data: bytes | Image, name: str) -> Tensor:
        """Prepare one image. Raises NestKALAError, with its name, if it cannot be decoded or scaled."""
        image = decode_image(data, name, _needed_side(self.preprocess))
        try:
            return self.preprocess(_middle(image) if _keeps_the_middle(self.preprocess) else image)
        except Exception as error:  # can be of any type: out of memory, or no pixels left on the shorter side
            width, height = image.size
            raise NestKALAError(
                f"cannot scale image {name!r} of {width} x {height} pixels: {one_line(error)}"
            ) from error


def _needed_side(preprocess: Any) -> int | None:
    """The maximum size that the first step scales the shorter side to; None if the first step is a different one."""
    if isinstance(preprocess, CentralSquare):
        return preprocess.side
    match getattr(preprocess, "transforms", []):
        case [resize, *_] if type(resize).__name__.startswith("Resize"):  # torchvision's, timm's and open_clip's
            size = getattr(resize, "size", None)
            return max(size) if isinstance(size, tuple | list) else size
    return None


def _keeps_the_middle(preprocess: Any) -> bool:
    """Whether preprocessing starts by scaling the shorter side and then cropping the center."""
    if isinstance(preprocess, CentralSquare):
        return True
    match getattr(preprocess, "transforms", []):
        case [resize, crop, *_] if type(crop).__name__ == "CenterCrop":
            size = getattr(resize, "size", None)
            whole = getattr(resize, "longest", 0) != 0  # timm's and open_clip's, which then fit the longer side
            both = hasattr(resize, "max_size") and not isinstance(size, int) and len(size or ()) > 1  # torchvision's
            return size is not None and not whole and not both
    return False


def _middle(image: Image) -> Image:
    """The part of the image within `LONGEST` / 2 times the shorter side of its center."""
    width, height = image.size
    cut = (max(width, height) - LONGEST * min(width, height)) // 2  # at both ends, so that the center stays in place
    if cut <= 0:
        return image
    return image.crop((cut, 0, width - cut, height) if width > height else (0, cut, width, height - cut))
