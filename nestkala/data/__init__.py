"""Labeled image collections: built-in sets, folders, lists, manifests, and features in place of images."""

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
    """The data set that `data` stands for.

    `data` is `digits` (scikit-learn's), `cifar10` (kept under `root`, downloaded where missing), what a library has
    (`hf:NAME`, `torchvision:NAME`, see `formats`), a file (a manifest or COCO annotations, see there), or a folder: one
    with own features (see `features`), list files (see `lists`), metadata or COCO annotations (see `formats`), else a
    tree of class folders (see `folders`). A folder of the same name as a built-in set is written `./digits`. `none` has
    classes and no images.

    `classes` names the classes (see `given_class_names`) of `none`, and those of class folders and manifests, of which
    some may be without images then.

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
    try:
        if (named := load_format(data, root, class_names)) is not None:
            return named
        folder = Path(data).expanduser()
        if not folder.exists():
            raise NestKALAError(
                f"no data set or folder {data!r}{nearest(data, _BUILT_IN)} (known: {', '.join(_BUILT_IN)}, "
                f"{', '.join(f'{prefix}NAME' for prefix in PREFIXES)}, or the path of a folder or a manifest)"
            )
        if not folder.is_dir():
            raise NestKALAError(
                f"data {data!r} is a file, and no manifest (.csv, .tsv, .jsonl, .parquet) or COCO annotations (.json); "
                "give one of these, or the folder that holds the images or the lists"
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
