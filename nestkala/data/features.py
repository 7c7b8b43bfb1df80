"""Your own features: features.npy and labels.npy in a folder."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ..utils.errors import NestKALAError
from ..utils.files import load_array
from .dataset import ImageDataset
from .lists import CLASS_NAMES, read_class_names

_FEATURES, _LABELS = "features.npy", "labels.npy"
_MOST_CLASSES = 100_000


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureDataset(ImageDataset):
    """Features (N, width), floats, instead of images; an item is read as the bytes of a float32 row."""

    features: npt.NDArray[Any]

    def read(self, index: int) -> bytes:
        return self.features[index].astype(np.float32).tobytes()

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        return replace(super().take(indices), features=self.features[indices])


def is_feature_folder(folder: Path) -> bool:
    """Whether `folder` holds features instead of images."""
    return (folder / _FEATURES).is_file()


def load_features(folder: Path) -> FeatureDataset:
    """Load features.npy, floats (N, width), and labels.npy, class numbers (N,) or 0 and 1 (N, C), from a folder.

    classnames.txt names the classes, one per line (default: "class 0" and so on). Items are named "row 0" and so on.

    Raises:
        NestKALAError: a file is missing, holds something else, or does not match the others.
    """
    features, labels = (_array(folder / name) for name in (_FEATURES, _LABELS))
    if features.ndim != 2 or not features.size or not np.issubdtype(features.dtype, np.floating):
        raise NestKALAError(f"{folder / _FEATURES} must be floats (N, width), not {features.dtype} {features.shape}")
    if labels.ndim not in (1, 2) or len(labels) != len(features) or labels.dtype.kind not in "biu":
        raise NestKALAError(
            f"{folder / _LABELS} must be class numbers ({len(features)},) or 0 and 1 ({len(features)}, classes), "
            f"not {labels.dtype} {labels.shape}"
        )
    least, most = int(labels.min(initial=0)), int(labels.max(initial=0))
    highest = 1 if labels.ndim == 2 else _MOST_CLASSES - 1
    if least < 0 or most > highest:
        raise NestKALAError(
            f"{folder / _LABELS} holds {least if least < 0 else most}, but labels must be 0 to {highest}"
        )
    num_classes = labels.shape[1] if labels.ndim == 2 else most + 1
    if not 1 <= num_classes <= _MOST_CLASSES:
        raise NestKALAError(f"{folder / _LABELS} has {num_classes} classes, not 1 to {_MOST_CLASSES}")
    named = folder / CLASS_NAMES
    class_names = read_class_names(named) if named.is_file() else tuple(f"class {c}" for c in range(num_classes))
    if len(class_names) < num_classes or (labels.ndim == 2 and len(class_names) > num_classes):
        raise NestKALAError(f"{named} names {len(class_names)} classes, but {_LABELS} has {num_classes}")
    return FeatureDataset(
        names=[f"row {index}" for index in range(len(features))],
        targets=labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(len(class_names)),
        class_names=class_names,
        features=features,
    )


def _array(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise NestKALAError(f"no {path}: a folder of features needs {_FEATURES} and {_LABELS}")
    return load_array(path, str(path))
