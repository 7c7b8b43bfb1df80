"""Common formats of collections: manifests, COCO annotations, Hugging Face and torchvision data sets."""

from pathlib import Path

from ...utils.errors import NestKALAError
from ..dataset import FileDataset, ImageDataset
from .coco import is_coco, is_coco_folder, load_coco, load_coco_folder
from .hub import HUB, load_hub
from .image_folder import is_image_folder, load_image_folder
from .manifest import is_manifest, load_manifest, manifest_paths
from .torchvision_sets import TORCHVISION, load_torchvision

__all__ = ["PREFIXES", "images_of", "load_folder_format", "load_format"]

PREFIXES = (HUB, TORCHVISION)
"""Prefixes of data sets that other libraries read."""


def load_format(data: str, root: Path, class_names: tuple[str, ...] | None = None) -> ImageDataset | None:
    """Load `data` if it is a manifest, COCO annotations, `hf:...` or `torchvision:...`; otherwise return None.

    torchvision data sets are stored under `root`. `class_names` are the classes of a manifest, some of which may then
    have no images.

    Raises NestKALAError if the data cannot be read, or class names are given for data that has its own.
    """
    if is_manifest(data):
        return load_manifest(data, class_names)
    if not data.startswith(PREFIXES) and not is_coco(data):
        return None
    if class_names is not None:
        raise NestKALAError(f"data {data} has its own classes: leave classes out")
    if data.startswith(HUB):
        return load_hub(data)
    return load_torchvision(data, root) if data.startswith(TORCHVISION) else load_coco(Path(data).expanduser())


def load_folder_format(folder: Path, class_names: tuple[str, ...] | None = None) -> FileDataset | None:
    """Load a folder described by a `metadata` file with `file_name` or by COCO annotations; otherwise return None.

    Raises NestKALAError as `load_format` does.
    """
    if is_image_folder(folder):
        return load_image_folder(folder, class_names)
    if not is_coco_folder(folder):
        return None
    if class_names is not None:
        raise NestKALAError(f"data {folder} has its own classes: leave classes out")
    return load_coco_folder(folder)


def images_of(data: str) -> tuple[Path, list[str]] | None:
    """A folder and the relative paths of the images in a manifest or COCO annotations; labels are ignored.

    Returns None if `data` is neither. Raises NestKALAError as `load_format` does.
    """
    if is_manifest(data):
        return manifest_paths(data)
    if not is_coco(data):
        return None
    found = load_coco(Path(data).expanduser())
    return found.root, list(found.names)
