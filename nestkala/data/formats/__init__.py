"""Collections as people have them: manifests, COCO annotations, data sets of Hugging Face and of torchvision."""

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
"""How the names of data sets begin that another library reads."""


def load_format(data: str, root: Path, class_names: tuple[str, ...] | None = None) -> ImageDataset | None:
    """What `data` says where it is the file of a manifest or of COCO annotations, `hf:...` or `torchvision:...`.

    None where it is none of these. Data sets of torchvision are kept under `root`. `class_names` are the classes of a
    manifest, some of which may have no image then.

    Raises NestKALAError for what cannot be read, and for class names beside data that has its own.
    """
    if is_manifest(data):
        return load_manifest(data, class_names)
    if not data.startswith(PREFIXES) and not is_coco(data):
        return None
    if class_names is not None:
        raise NestKALAError(f"data {data} has classes of its own: leave classes out")
    if data.startswith(HUB):
        return load_hub(data)
    return load_torchvision(data, root) if data.startswith(TORCHVISION) else load_coco(Path(data).expanduser())


def load_folder_format(folder: Path, class_names: tuple[str, ...] | None = None) -> FileDataset | None:
    """The images of a folder that a `metadata` file with `file_name`, or COCO annotations, describe; else None.

    Raises NestKALAError as `load_format` does.
    """
    if is_image_folder(folder):
        return load_image_folder(folder, class_names)
    if not is_coco_folder(folder):
        return None
    if class_names is not None:
        raise NestKALAError(f"data {folder} has classes of its own: leave classes out")
    return load_coco_folder(folder)


def images_of(data: str) -> tuple[Path, list[str]] | None:
    """A folder, and paths relative to it of the images that a manifest or COCO annotations name; labels are not used.

    None where `data` is neither. Raises NestKALAError as `load_format` does.
    """
    if is_manifest(data):
        return manifest_paths(data)
    if not is_coco(data):
        return None
    found = load_coco(Path(data).expanduser())
    return found.root, list(found.names)
