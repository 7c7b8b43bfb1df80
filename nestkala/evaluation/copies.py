"""Does a photograph that was cropped, scaled and saved again find its original? Class mAP does not measure this.

Codes that separate classes may still give all images of a class the same code. Copy detection (Douze et al., "The 2021
Image Similarity Dataset and Challenge", arXiv 2106.09672) asks for the one image that a near copy was made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image

from ..codes import columns, prefix
from ..data import FeatureDataset, ImageDataset
from ..heads import HashHead
from ..images.decoding import decode_image
from ..utils.errors import NestKALAError
from . import evaluate
from .relevance import RelevanceCounts

if TYPE_CHECKING:
    from accelerate import Accelerator

COPIES = 400
"""Maximum number of gallery images that are copied."""

MEANING = (
    f"copy@1, copy@10: how often a gallery image (at most {COPIES}), cropped, scaled and saved again, "
    "finds itself first, and among the first ten"
)
"""Explanation of the two table columns."""

_DRAW = 4  # random stream of the protocol's seed; `draw_split` uses those before it
_LONGEST_SIDE = 65_500  # pixels, of a JPEG
_RECIPE = f"near copy 1, Pillow {PIL.__version__}\n".encode()
"""Version of the `near_copy` procedure; increase it if the copies change."""


def near_copy(data: bytes, name: str) -> bytes:
    """A near copy of an encoded image as a JPEG, deterministic.

    Crops a tenth of the width at the left and a twentieth at the right, a twentieth of the height at the top and a
    tenth at the bottom, scales the rest to 3/4 and saves it at quality 50. At least one pixel remains.

    Raises:
        NestKALAError: if the image cannot be decoded; the message contains `name`.
    """
    image = decode_image(data, name)
    width, height = image.size
    left, top = width // 10, height // 20
    image = image.crop((left, top, max(left + 1, width * 19 // 20), max(top + 1, height * 9 // 10)))
    width, height = (min(max(1, side * 3 // 4), _LONGEST_SIDE) for side in image.size)
    buffer = BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class NearCopies:
    """The images of a data set, each read as its near copy."""

    originals: ImageDataset

    @property
    def names(self) -> Sequence[str]:
        """Names of the originals."""
        return self.originals.names

    def content(self, index: int) -> bytes:
        """Bytes that identify a near copy: the original, and how it is copied. Raises NestKALAError as `read` does."""
        content = self.originals.content(index)
        if isinstance(content, Path):
            content = self.originals.read(index)
        return _RECIPE + content

    def read(self, index: int) -> bytes:
        """The near copy of one image. Raises NestKALAError if it cannot be read or decoded."""
        return near_copy(self.originals.read(index), self.names[index])


def draw_originals(dataset: ImageDataset, gallery: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Positions in the gallery, ascending, of the images to copy: all, or `COPIES` drawn with the protocol's seed.

    Empty for features, which cannot be cropped, and for a gallery of one image, which is always found.
    """
    if isinstance(dataset, FeatureDataset) or len(gallery) < 2:
        return np.empty(0, np.int64)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAW,)))
    return np.sort(rng.choice(len(gallery), min(COPIES, len(gallery)), replace=False))


class CopyRecall(NamedTuple):
    """How often a near copy finds its original, in [0, 1].

    Attributes:
        at_1: ranked first in the gallery.
        at_10: among the first ten.
    """

    at_1: float
    at_10: float

    @property
    def scores(self) -> dict[str, float]:
        """Both values by name."""
        return {"copy_recall_at_1": self.at_1, "copy_recall_at_10": self.at_10}


def copy_recall(
    copies: NDArray[np.uint8],
    gallery: NDArray[np.uint8],
    originals: NDArray[np.integer],
    lengths: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    accelerator: "Accelerator | None" = None,
) -> dict[int, CopyRecall]:
    """How often near copies find their originals by Hamming distance, at every prefix length.

    Exact expectations over random order within equal distances: if n images are nearer than the original and e are
    at its distance, including itself, it is among the first k with probability (k - n) / e, clipped to 0..1. Another
    image with the same code, even with the same pixels, is not the original. As in `evaluate`, memory use grows with
    copies and lengths, not with the gallery.

    Args:
        copies: packed codes of the near copies, uint8 (M, bytes).
        gallery: packed codes, uint8 (G, bytes), including those of the originals.
        originals: the position of each copy's original in the gallery, (M,), 0..G - 1.
        lengths: prefix lengths in bits, each 1..8 * bytes.
        device, accelerator: see `evaluate`.

    Raises:
        NestKALAError: if positions are outside the gallery or not one per copy, and as in `evaluate`.
    """
    if originals.dtype.kind not in "iu" or originals.shape != (len(copies),):
        raise NestKALAError(
            f"originals: got {originals.dtype} {originals.shape}, need the positions of {len(copies)} images"
        )
    if len(wrong := originals[(originals < 0) | (originals >= len(gallery))]):
        raise NestKALAError(f"originals: got position {wrong[0]}, but the gallery has {len(gallery)} images, from 0")
    # Nothing is relevant yet: all items are counted as not relevant.
    no_labels = (np.broadcast_to(np.False_, (len(codes), 1)) for codes in (copies, gallery))
    ranked = evaluate(
        copies, next(no_labels), gallery, next(no_labels), lengths, device=device, accelerator=accelerator
    )
    own = gallery[originals]
    recall = {}
    for bits, metrics in ranked.items():
        counts = metrics.counts.counts.copy()  # (M, bits + 1, 2)
        distance = np.bitwise_count(prefix(copies, bits) ^ prefix(own, bits)).sum(axis=1, dtype=np.int64)
        counts[np.arange(len(copies)), distance] += np.array([-1, 1], counts.dtype)
        found = RelevanceCounts(counts)
        recall[bits] = CopyRecall(float(found.recall_at(1).mean()), float(found.recall_at(10).mean()))
    return recall


def score_copies(
    head: HashHead,
    copies: NDArray[np.uint8],
    gallery: NDArray[np.uint8],
    originals: NDArray[np.integer],
    lengths: Sequence[int] | None = None,
    *,
    device: torch.device | str = "cpu",
    accelerator: "Accelerator | None" = None,
) -> dict[int, CopyRecall]:
    """`copy_recall` for codes of any head, packed with all its outputs; by default at the head's lengths."""
    lengths = head.lengths if lengths is None else lengths
    score = partial(copy_recall, device=device, accelerator=accelerator)
    if head.nested:
        return score(copies, gallery, originals, lengths)
    recall: dict[int, CopyRecall] = {}
    for bits in lengths:
        asked, items = (columns(codes, head.columns(bits)) for codes in (copies, gallery))
        recall |= score(asked, items, originals, (bits,))
    return recall
