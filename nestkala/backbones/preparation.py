"""Encoded images to what a trunk takes. Small, so that decoding workers are handed this and no tower."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image
from torch import Tensor

from ..images.decoding import decode_image
from ..utils.errors import NestKALAError, one_line

LONGEST = 16
"""Of an image longer than so many times its shorter side only the middle is scaled, where only that would be kept."""


@dataclass(frozen=True)
class Preparation:
    """An encoded image, or a decoded one -> (3, H, W).

    The cost is bounded by the pixels of the image and of the result: a picture of 1,000,000 x 1 pixels is not first
    scaled until its shorter side fits.
    """

    preprocess: Callable[[Image], Tensor]

    def __call__(self, data: bytes | Image, name: str) -> Tensor:
        """Prepare one image. Raises NestKALAError, with the name, for one that cannot be decoded or scaled."""
        image = decode_image(data, name)
        try:
            return self.preprocess(_middle(image) if _keeps_the_middle(self.preprocess) else image)
        except Exception as error:  # of whatever kind: no memory, or no pixel left of the shorter side
            width, height = image.size
            raise NestKALAError(
                f"cannot scale image {name!r} of {width} x {height} pixels: {one_line(error)}"
            ) from error


def _keeps_the_middle(preprocess: Any) -> bool:
    """Whether it begins by scaling the shorter side to a length, and then cuts out the middle."""
    from torchvision.transforms import CenterCrop

    match getattr(preprocess, "transforms", []):
        case [resize, CenterCrop(), *_]:
            size = getattr(resize, "size", None)
            whole = getattr(resize, "longest", 0) != 0  # timm's and open_clip's, which then fit the longer side
            both = hasattr(resize, "max_size") and not isinstance(size, int) and len(size or ()) > 1  # torchvision's
            return size is not None and not whole and not both
    return False


def _middle(image: Image) -> Image:
    """The image, less what is further from its middle than `LONGEST` / 2 times the shorter side."""
    width, height = image.size
    cut = (max(width, height) - LONGEST * min(width, height)) // 2  # at both ends, so that the middle stays where it is
    if cut <= 0:
        return image
    return image.crop((cut, 0, width - cut, height) if width > height else (0, cut, width, height - cut))
