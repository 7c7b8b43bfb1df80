"""Labeled image collections: built-in sets, folders, lists, manifests, and features instead of images."""

from pathlib import Path

from ..utils.errors import NestKALAError, nearest
from .archive import no_images, with_archive
from .broken import without_broken
from .cifar10 import load_cifar10
from .dataset import ArrayDataset, FileDataset, ImageDataset
from .digits import load_digits
from .features import FeatureDataset, is_feature_folder, load_features
from .folders import load_folders
from .formats import PREFIXES, load_folder_format, load_format
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
    """Load the data set named by `data`.

    `data` is `digits` (from scikit-learn), `cifar10` (stored under `root`, downloaded if missing), a data set from a
    library (`hf:NAME`, `torchvision:NAME`, see `formats`), a file (a manifest or COCO annotations, see `formats`), or a
    folder: your own features (see `features`), list files (see `lists`), metadata or COCO annotations (see `formats`),
    or else a tree of class folders (see `folders`). To use a folder with the name of a built-in set, write `./digits`.
    `none` has classes but no images.

    `classes` names the classes (see `given_class_names`) of `none`, of class folders and of manifests, some of which
    may then have no images.

    Raises NestKALAError for an unknown name, a missing folder, classes that are missing or given for data that names
    its own, and errors in the contents of a folder.
    """
    class_names = None if classes is None else given_class_names(classes)
    if data == "none":
        if class_names is None:
            raise NestKALAError('data none has no images to take classes from: name them with --classes "dog,cat,car"')
        return no_images(class_names)
    if class_names is not None and data in _BUILT_IN:
        raise NestKALAError(f"data {data} has its own classes: leave classes out")
    if data == "digits":
        return load_digits()
    if data == "cifar10":
        return load_cifar10(root)
    try:
        if (named := load_format(data, root, class_names)) is not None:
            return named
        folder = Path(data).expanduser()
        if not folder.exists():
            raise NestKALAError(
                f"no data set or folder {data!r}{nearest(data, _BUILT_IN)} (known: {', '.join(_BUILT_IN)}, "
                f"{', '.join(f'{prefix}NAME' for prefix in PREFIXES)}, or the path of a folder or manifest)"
            )
        if not folder.is_dir():
            raise NestKALAError(
                f"data {data!r} is a file, but not a manifest (.csv, .tsv, .jsonl, .parquet) or COCO annotations "
                "(.json); give one of these, or the folder of the images or lists"
            )
        if class_names is not None and (is_feature_folder(folder) or is_list_folder(folder)):
            raise NestKALAError(f"{data} names its classes in {CLASS_NAMES}: leave classes out")
        if is_feature_folder(folder):
            return load_features(folder)
        if is_list_folder(folder):
            return load_lists(folder)
        if (described := load_folder_format(folder, class_names)) is not None:
            return described
        refuse_ignored_lists(folder)
        return load_folders(folder, class_names)
    except OSError as error:
        raise NestKALAError(f"cannot read {str(error.filename)!r}: {error.strerror}") from error
