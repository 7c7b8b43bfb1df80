"""CIFAR-10 as its authors publish it, through torchvision's loader."""

from pathlib import Path

import numpy as np

from ..errors import NestKALAError
from .dataset import ArrayDataset


def load_cifar10(root: Path) -> ArrayDataset:
    """All 60,000 images, 32 x 32 pixels, as one set, named `train/0`..`train/49999`, `test/0`..`test/9999`.

    Kept under `root`, as torchvision lays it out, and downloaded where missing. Raises NestKALAError where
    that fails.
    """
    from torchvision.datasets import CIFAR10  # the import takes seconds, which no other source needs

    try:
        halves = [CIFAR10(root, train=train, download=True) for train in (True, False)]
    except Exception as error:  # torchvision passes on those of urllib, http, tarfile and pickle
        raise NestKALAError(
            f"cannot download CIFAR-10 ({' '.join(str(error).split())}); "
            f"fetch {CIFAR10.url} by other means and put {CIFAR10.filename} into {str(root)!r}"
        ) from error
    return ArrayDataset(
        names=[
            f"{part}/{number}"
            for part, half in zip(("train", "test"), halves, strict=True)
            for number in range(len(half))
        ],
        targets=np.concatenate([half.targets for half in halves])[:, None] == np.arange(10),
        class_names=tuple(halves[0].classes),
        images=np.concatenate([half.data for half in halves]),
    )
