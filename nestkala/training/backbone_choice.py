"""Which backbone suits a data set."""

from statistics import median

import numpy as np

from ..data import FeatureDataset, ImageDataset
from ..images.decoding import image_size

SAMPLE = 64
PHOTOGRAPH = 32
"""Pixels of the shorter side from which an image is taken for a photograph; CIFAR-10's, of 32, are better so."""


def suitable_backbone(dataset: ImageDataset) -> tuple[str, str]:
    """The name of the backbone for own features, photographs or smaller images, and the reason in words.

    Images are judged by the median shorter side of a sample, the same every time, of those that can be read.
    """
    if isinstance(dataset, FeatureDataset):
        name = f"features:{dataset.features.shape[1]}"
        return name, "the data holds own features"
    sample = np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(int)
    sizes = [image_size(dataset.read(index)) for index in sample.tolist()]
    sides = [min(size) for size in sizes if size is not None]
    if not sides:
        return "photo", "no image of a sample can be read"
    side = median(sides)
    return "tiny" if side < PHOTOGRAPH else "photo", f"images' shorter sides are {side:g} pixels (median)"
