"""Labelled image collections: built-in sets, class-folder trees, list files, and features in place of images."""

from pathlib import Path

from ..errors import NestKALAError, nearest
from .broken import without_broken
from .cifar10 import load_cifar10
from .dataset import ArrayDataset, FileDataset, ImageDataset
from .digits import load_digits
from .features import FeatureDataset, is_feature_folder, load_features
from .folders import load_folders
from .lists import is_list_folder, load_lists

__all__ = ["ArrayDataset", "FeatureDataset", "FileDataset", "ImageDataset", "load_dataset", "without_broken"]

_BUILT_IN = ("cifar10", "digits")


def load_dataset(data: str, root: Path) -> ImageDataset:
    """The data set that `data` stands for.

    `data` is `digits` (scikit-learn's), `cifar10` (kept under `root`, downloaded where missing), or a folder:
    one with own features (see `features`) or list files (see `lists`), else a tree of class folders (see `folders`).
    A folder of the same name as a built-in set is written `./digits`.

    Raises NestKALAError for an unknown name, a missing folder, and whatever is wrong inside one.
    """
    if data == "digits":
        return load_digits()
    if data == "cifar10":
        return load_cifar10(root)
    folder = Path(data).expanduser()
    if not folder.exists():
        raise NestKALAError(
            f"no data set or folder {data!r}{nearest(data, _BUILT_IN)} "
            f"(known: {', '.join(_BUILT_IN)}, or the path of a folder)"
        )
    if not folder.is_dir():
        raise NestKALAError(f"data {data!r} is a file; give the folder that holds the images or the lists")
    try:
        if is_feature_folder(folder):
            return load_features(folder)
        return load_lists(folder) if is_list_folder(folder) else load_folders(folder)
    except OSError as error:
        raise NestKALAError(f"cannot read {str(error.filename)!r}: {error.strerror}") from error
