"""How much the codes of two backends differ."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_DIFFERING = 0.001
"""Largest share of bits in which "auto" lets a backend's codes differ from torch's. In measurements, float32 rounding
changed at most 0.001 %, bfloat16 0.2 %."""

_CROPS = 16
"""Crops per photograph."""


def differing_bits(codes: NDArray[np.uint8], others: NDArray[np.uint8], bits: int) -> float:
    """The share of differing bits between packed codes (N, ceil(bits / 8)) of the same images."""
    return float(np.bitwise_count(codes ^ others).sum()) / max(1, len(codes) * bits)


@cache
def sample_images() -> tuple[Image.Image, ...]:
    """32 square crops of the two photographs that come with scikit-learn, for comparing codes."""
    return tuple(piece for name in ("china.jpg", "flower.jpg") for piece in _pieces(name))


def _pieces(name: str) -> Iterator[Image.Image]:
    from sklearn.datasets import load_sample_image

    pixels = load_sample_image(name)  # uint8 (427, 640, 3)
    height, width, _ = pixels.shape
    rng = np.random.default_rng(0)
    for side in np.linspace(100, height, _CROPS, dtype=int):
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        yield Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
