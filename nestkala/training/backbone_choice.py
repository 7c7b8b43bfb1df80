"""Chooses the backbone that suits a data set."""

from statistics import median

import numpy as np

from ..data import FeatureDataset, ImageDataset
from ..images.decoding import image_size

SAMPLE = 64
PHOTOGRAPH = 32
"""Images whose shorter side has at least this many pixels count as photographs; CIFAR-10 has 32 pixels."""


def suitable_backbone(dataset: ImageDataset) -> tuple[str, str]:
    """The name of the backbone (for own features, photographs or smaller images), and the reason as text.

    Images are judged by the median shorter side of a sample, which is always the same, of the readable ones.
    """
    if isinstance(dataset, FeatureDataset):
        name = f"features:{dataset.features.shape[1]}"
        return name, "the data set consists of features"
    sample = np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).astype(int)
    sizes = [image_size(dataset.read(index)) for index in sample.tolist()]
    sides = [min(size) for size in sizes if size is not None]
    if not sides:
        return "photo", "no image of the sample can be read"
    side = median(sides)
    return "tiny" if side < PHOTOGRAPH else "photo", f"the median shorter side of the images is {side:g} pixels"
