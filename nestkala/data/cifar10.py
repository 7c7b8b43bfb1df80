"""CIFAR-10 and CIFAR-100 in their authors' binary version, which needs no unpickling."""

import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.errors import NestKALAError, one_line
from .dataset import ArrayDataset

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""From https://www.cs.toronto.edu/~kriz/cifar.html."""
URL_100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
MD5_100 = "03b5dce01913d631647c71ecec9e9cb8"
"""Likewise."""

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_IMAGE = (3, 32, 32)  # channels, rows, columns


def load_cifar10(root: Path) -> ArrayDataset:
    """All 60,000 images of 32 x 32 pixels as one set, named `train/0`..`train/49999`, `test/0`..`test/9999`.

    The archive is stored in `root`, and downloaded if it is missing or differs. Raises NestKALAError if that fails.
    """
    with tarfile.open(_downloaded("CIFAR-10", URL, MD5, root)) as tar:
        parts = {
            part: np.concatenate([_records(tar, f"cifar-10-batches-bin/{batch}.bin", 1) for batch in batches])
            for part, batches in _BATCHES.items()
        }
    return _joined(parts, 1, _CLASSES)


def load_cifar100(root: Path) -> ArrayDataset:
    """All 60,000 images of CIFAR-100 with their fine labels, likewise."""
    with tarfile.open(_downloaded("CIFAR-100", URL_100, MD5_100, root)) as tar:
        parts = {part: _records(tar, f"cifar-100-binary/{part}.bin", 2) for part in _BATCHES}
        named = _content(tar, "cifar-100-binary/fine_label_names.txt").decode().split()
    return _joined(parts, 2, tuple(name.replace("_", " ") for name in named))


def _downloaded(name: str, url: str, md5: str, root: Path) -> Path:
    """The archive in `root`."""
    from torchvision.datasets.utils import download_url  # the import takes seconds, and other data sets do not need it

    archive = root / Path(url).name
    try:
        download_url(url, root, md5=md5)
    except Exception as error:  # torchvision passes on exceptions from urllib and http
        raise NestKALAError(
            f"cannot download {name} ({one_line(error)}); "
            f"get {url} some other way and put {archive.name} into {str(root)!r}"
        ) from error
    return archive


def _joined(parts: Mapping[str, NDArray[np.uint8]], labels: int, class_names: tuple[str, ...]) -> ArrayDataset:
    """The images of records (n, labels + 3072), of which the last label is used."""
    records = np.concatenate(list(parts.values()))
    return ArrayDataset(
        names=[f"{part}/{number}" for part, rows in parts.items() for number in range(len(rows))],
        targets=records[:, labels - 1 : labels] == np.arange(len(class_names)),
        class_names=class_names,
        images=np.ascontiguousarray(records[:, labels:].reshape(-1, *_IMAGE).transpose(0, 2, 3, 1)),
    )


def _records(tar: tarfile.TarFile, member: str, labels: int) -> NDArray[np.uint8]:
    return np.frombuffer(_content(tar, member), np.uint8).reshape(-1, labels + np.prod(_IMAGE, dtype=int))


def _content(tar: tarfile.TarFile, member: str) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # otherwise the MD5 would differ
    return file.read()
