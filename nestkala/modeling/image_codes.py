"""Encodes images to packed codes with the whole model."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..codes import pack
from ..tokens.source import Images, TokenSource
from .model import HashModel


@torch.no_grad()
def relaxed_codes(
    model: HashModel, source: TokenSource, images: Images, indices: Sequence[int], progress: str | None = None
) -> Iterator[Tensor]:
    """Relaxed codes (n, L) in (-1, 1) of the images at `indices`, in that order, a batch at a time, on the CPU.

    L is the head's width.
    """
    model.eval()
    for tokens in source.batches(images, indices, progress):
        with source.autocast():
            h, _ = model(tokens.to(source.device))
        yield h.cpu()


def packed_codes(
    model: HashModel, source: TokenSource, images: Images, indices: Sequence[int], progress: str | None = None
) -> np.ndarray:
    """Packed codes uint8 (N, ceil(L / 8)) of the images at `indices`, in that order; L is the head's width."""
    bytes_per_code = -(-model.head.width // 8)
    batches = [pack(h) for h in relaxed_codes(model, source, images, indices, progress)]
    return np.concatenate(batches) if batches else np.empty((0, bytes_per_code), np.uint8)
