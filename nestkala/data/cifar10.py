"""CIFAR-10 in the binary version of its authors, which is labels and pixels alone: nothing to unpickle."""

import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.errors import NestKALAError, one_line
from .dataset import ArrayDataset

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
"""As https://www.cs.toronto.edu/~kriz/cifar.html gives it."""

_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_IMAGE = (3, 32, 32)  # channels, rows, columns


def load_cifar10(root: Path) -> ArrayDataset:
    """All 60,000 images, 32 x 32 pixels, as one set, named `train/0`..`train/49999`, `test/0`..`test/9999`.

    The archive is kept in `root`, and downloaded where it is missing or another. Raises NestKALAError where that fails.
    """
    from torchvision.datasets.utils import download_url  # the import takes seconds, which no other source needs

    archive = root / Path(URL).name
    try:
        download_url(URL, root, md5=MD5)
    except Exception as error:  # torchvision passes on those of urllib and http
        raise NestKALAError(
            f"cannot download CIFAR-10 ({one_line(error)}); "
            f"fetch {URL} by other means and put {archive.name} into {str(root)!r}"
        ) from error
    with tarfile.open(archive) as tar:
        parts = {
            part: np.concatenate([_records(tar, batch) for batch in batches]) for part, batches in _BATCHES.items()
        }
    records = np.concatenate(list(parts.values()))  # (60000, 1 + 3072), the label first
    return ArrayDataset(
        names=[f"{part}/{number}" for part, rows in parts.items() for number in range(len(rows))],
        targets=records[:, :1] == np.arange(10),
        class_names=_CLASSES,
        images=np.ascontiguousarray(records[:, 1:].reshape(-1, *_IMAGE).transpose(0, 2, 3, 1)),
    )


def _records(tar: tarfile.TarFile, batch: str) -> NDArray[np.uint8]:
    file = tar.extractfile(f"cifar-10-batches-bin/{batch}.bin")
    assert file is not None  # or the archive had another MD5
    return np.frombuffer(file.read(), np.uint8).reshape(-1, 1 + np.prod(_IMAGE, dtype=int))
