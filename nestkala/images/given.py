"""Images from a caller: paths, open files, Pillow images, arrays or tensors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..utils.errors import NestKALAError

ImageLike = str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image | npt.NDArray[Any] | Tensor
"""One image: a path; the bytes of an encoded file, or the file opened in binary mode; a Pillow image; an array uint8
(H, W, 3); a tensor (3, H, W), uint8 or floats in [0, 1]. For a model trained on your own features: one (width,)."""

_ALLOWED = (
    "a path, the bytes of a file, a file opened in binary mode, a Pillow image, an array uint8 (H, W, 3), or a "
    "tensor (3, H, W), uint8 or floats in [0, 1]"
)
_CHUNK = 8
"""Number of batches of a stream held at a time."""


@dataclass(frozen=True)
class GivenImages:
    """Some of the images that a caller gave, each read on demand.

    images: any number of images.
    features: whether they are features instead of images.
    first: number of the first one among all images given.
    """

    images: Sequence[ImageLike]
    features: bool = False
    first: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def names(self) -> Sequence[str]:
        """Names for error messages: paths or numbers."""
        return [
            str(image) if isinstance(image, str | Path) else f"number {number}"
            for number, image in enumerate(self.images, self.first)
        ]

    def read(self, index: int) -> bytes | Image.Image:
        """An encoded or decoded image; for a feature, its float32 bytes.

        Raises NestKALAError if a file cannot be read, or the item is not an image.
        """
        image = self.images[index]
        number = index + self.first
        if isinstance(image, str | Path):
            try:
                return Path(image).read_bytes()
            except (OSError, ValueError) as error:  # ValueError: a name with a NUL
                raise NestKALAError(f"cannot read image {str(image)!r}: {getattr(error, 'strerror', error)}") from None
        if isinstance(image, bytes | Image.Image):
            return image
        if isinstance(image, bytearray | memoryview):
            return bytes(image)
        if isinstance(image, np.ndarray | Tensor):
            return _feature(image, number) if self.features else _picture(image, number)
        if hasattr(image, "read"):
            content = image.read()
            if isinstance(content, bytes):
                return content
            raise NestKALAError(f"image number {number} is a file opened in text mode: open it in mode 'rb'")
        raise NestKALAError(f"image number {number} is {_in_words(image)}, not {_ALLOWED}")


def chunks(images: ImageLike | Iterable[ImageLike], features: bool, batch_size: int) -> Iterator[GivenImages]:
    """Yield the given images: one image or a sequence as a whole, other iterables a few batches at a time.

    Arrays and tensors with one more dimension than an image or feature are several images. Yields at least one chunk,
    which may be empty.

    Raises NestKALAError if the argument is neither an image nor an iterable.
    """
    if isinstance(images, np.ndarray | Tensor):
        several = images.ndim == (2 if features else 4)
        yield GivenImages(images if several else [images], features)  # type: ignore[arg-type]
    elif isinstance(images, str | Path | bytes | bytearray | memoryview | Image.Image) or hasattr(images, "read"):
        yield GivenImages([images], features)  # type: ignore[list-item]
    elif isinstance(images, Sequence):
        yield GivenImages(_opened_once(images), features)  # type: ignore[arg-type]
    elif isinstance(images, Iterable):
        waiting, first, size = iter(images), 0, _CHUNK * max(1, batch_size)
        while (held := list(islice(waiting, size))) or not first:
            yield GivenImages(_opened_once(held), features, first)
            first += max(1, len(held))
    else:
        raise NestKALAError(f"images are {_in_words(images)}, not {_ALLOWED}, or several of these")


def _opened_once(images: Sequence[ImageLike]) -> Sequence[ImageLike]:
    """Replace open files with their bytes, so that each is read only once."""
    if not any(hasattr(image, "read") for image in images):
        return images
    return [GivenImages(images).read(n) if hasattr(image, "read") else image for n, image in enumerate(images)]


def _feature(image: npt.NDArray[Any] | Tensor, number: int) -> bytes:
    feature = image.detach().cpu().float().numpy() if isinstance(image, Tensor) else image
    if feature.ndim != 1 or feature.dtype.kind not in "fiu":
        raise NestKALAError(f"feature number {number} is {_in_words(image)}, not numbers (width,)")
    return feature.astype(np.float32).tobytes()


def _picture(image: npt.NDArray[Any] | Tensor, number: int) -> Image.Image:
    refusal = NestKALAError(f"image number {number} is {_in_words(image)}, not {_ALLOWED}")
    if isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise refusal
        pixels = image.detach().cpu()
        if pixels.is_floating_point():
            low, high = (float(end) for end in torch.aminmax(pixels))
            if not (low >= 0 and high <= 1):
                raise NestKALAError(
                    f"image number {number} has values from {low:g} to {high:g}, not in [0, 1]: pass it "
                    "without normalization"
                )
            pixels = (pixels.float() * 255).round().to(torch.uint8)
        if pixels.dtype != torch.uint8:
            raise refusal
        return Image.fromarray(rearrange(pixels, "c h w -> h w c").contiguous().numpy())
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise refusal
    return Image.fromarray(np.ascontiguousarray(image))


def _in_words(image: object) -> str:
    if isinstance(image, np.ndarray | Tensor):
        kind = "an array" if isinstance(image, np.ndarray) else "a tensor"
        return f"{kind} {str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    return f"of type {type(image).__name__}"
