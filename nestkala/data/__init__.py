"""Labelled image collections: built-in sets, class-folder trees, list files, and features in place of images."""

from pathlib import Path

from ..utils.errors import NestKALAError, nearest
from .archive import no_images, with_archive
from .broken import without_broken
from .cifar10 import load_cifar10
from .dataset import ArrayDataset, FileDataset, ImageDataset
from .digits import load_digits
from .features import FeatureDataset, is_feature_folder, load_features
from .folders import load_folders
from .lists import CLASS_NAMES, given_class_names, is_list_folder, load_lists, refuse_ignored_lists

__all__ = [
    "ArrayDataset",
    "FeatureDataset",
    "FileDataset",
    "ImageDataset",
    "load_dataset",
    "with_archive",
    "without_broken",
]

_BUILT_IN = ("cifar10", "digits", "none")


def load_dataset(data: str, root: Path, classes: str | None = None) -> ImageDataset:
    """The data set that `data` stands for.

    `data` is `digits` (scikit-learn's), `cifar10` (kept under `root`, downloaded where missing), or a folder:
    one with own features (see `features`) or list files (see `lists`), else a tree of class folders (see `folders`).
    A folder of the same name as a built-in set is written `./digits`. `none` has classes and no images.

    `classes` names the classes (see `given_class_names`) of `none`, and those of class folders, of which some may be
    without images then.

    Raises NestKALAError for an unknown name, a missing folder, classes where the data names its own or where none are
    given, and whatever is wrong inside a folder.
    """
    class_names = None if classes is None else given_class_names(classes)
    if data == "none":
        if class_names is None:
            raise NestKALAError('data none has no images to take classes from: name them, --classes "dog,cat,car"')
        return no_images(class_names)
    if class_names is not None and data in _BUILT_IN:
        raise NestKALAError(f"data {data} has classes of its own: leave classes out")
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
        if class_names is not None and (is_feature_folder(folder) or is_list_folder(folder)):
            raise NestKALAError(f"{data} names its classes in {CLASS_NAMES}: leave classes out")
        if is_feature_folder(folder):
            return load_features(folder)
        if is_list_folder(folder):
            return load_lists(folder)
        refuse_ignored_lists(folder)
        return load_folders(folder, class_names)
    except OSError as error:
        raise NestKALAError(f"cannot read {str(error.filename)!r}: {error.strerror}") from error
