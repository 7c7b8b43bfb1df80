"""COCO object annotations, instances_*.json (https://cocodataset.org/#format-data), as image labels."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...utils.errors import NestKALAError
from ...utils.text_files import read_json
from ..class_names import check_class_names, one_form
from ..dataset import FileDataset
from .parts import parts_of

_PATTERN = "instances_*.json"


def is_coco(data: str) -> bool:
    """Whether this is the name of a JSON file."""
    path = Path(data).expanduser()
    return path.suffix.lower() == ".json" and not path.is_dir()


def is_coco_folder(folder: Path) -> bool:
    """Whether a folder, or its subfolder `annotations`, holds instances_*.json."""
    return bool(_files(folder))


def load_coco(path: Path) -> FileDataset:
    """Load the images of one annotation file, each labeled with the categories of its objects, if any.

    Images are next to the file, or in a folder next to it or to its folder that is named `images` or like the split, as
    in annotations/instances_val2017.json and val2017/. Classes are ordered by category id.

    Raises NestKALAError if the file is missing, not JSON or not such annotations, or an image is missing.
    """
    return _joined(path.parent.parent if path.parent.name == "annotations" else path.parent, [path], str(path))


def load_coco_folder(folder: Path) -> FileDataset:
    """Like `load_coco`, for all instances_*.json in a folder or its subfolder `annotations`, one per split.

    All files must have the same categories.
    """
    return _joined(folder, _files(folder), str(folder))


def _files(folder: Path) -> list[Path]:
    return sorted([*folder.glob(_PATTERN), *folder.glob(f"annotations/{_PATTERN}")])


def _joined(root: Path, paths: list[Path], where: str) -> FileDataset:
    names: list[str] = []
    targets, splits = list[npt.NDArray[np.bool_]](), list[tuple[int, str]]()
    class_names: tuple[str, ...] = ()
    for path in paths:
        content = _Content(path)
        if class_names and content.class_names != class_names:
            raise NestKALAError(f"{path} and {paths[0]} have different categories")
        class_names = content.class_names
        if len(paths) > 1:
            split = path.stem.removeprefix("instances_")
            splits += [(len(names) + row, split) for row in range(len(content.images))]
        names += content.places(root)
        targets.append(content.targets())
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise NestKALAError(f"{where} has image {repeated!r} more than once")
    return FileDataset(
        names=names,
        targets=np.concatenate(targets),
        class_names=class_names,
        parts=parts_of(splits, len(names), where),
        root=root,
    )


class _Content:
    """The content of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        content = read_json(path)
        self.images = self._list(content, "images", id=int, file_name=str)
        self._objects = self._list(content, "annotations", image_id=int, category_id=int)
        categories = sorted(self._list(content, "categories", id=int, name=str), key=lambda each: each["id"])
        self.class_names = tuple(one_form(each["name"]) for each in categories)
        check_class_names(self.class_names, str(path))
        self._column = {each["id"]: column for column, each in enumerate(categories)}
        self._row = {image["id"]: row for row, image in enumerate(self.images)}
        if not self.images or len(categories) < 2:
            raise NestKALAError(f"{path} has {len(self.images)} images and {len(categories)} categories")
        for what, ids, all_of in (
            ("image id", self._row, self.images),
            ("category id", self._column, categories),
            ("category name", set(self.class_names), categories),
        ):
            if len(ids) < len(all_of):
                raise NestKALAError(f"{path} has an {what} twice" if what[0] == "i" else f"{path} has a {what} twice")

    def _list(self, content: Any, key: str, **fields: type) -> list[dict[str, Any]]:
        found = content.get(key) if isinstance(content, dict) else None
        if not isinstance(found, list):
            raise NestKALAError(f"{self.path} is not a file of COCO annotations: it has no list {key!r}")
        for number, each in enumerate(found):
            for name, kind in fields.items():
                if not isinstance(each, dict) or type(each.get(name)) is not kind:
                    raise NestKALAError(f"{self.path}: {key}[{number}] has no {name!r} ({kind.__name__})")
        return found

    def targets(self) -> npt.NDArray[np.bool_]:
        """Multi-hot labels (images, categories)."""
        targets = np.zeros((len(self.images), len(self._column)), bool)
        for number, each in enumerate(self._objects):
            if each["image_id"] not in self._row or each["category_id"] not in self._column:
                raise NestKALAError(
                    f"{self.path}: annotations[{number}] refers to image {each['image_id']} and category "
                    f"{each['category_id']}, which do not both exist"
                )
            targets[self._row[each["image_id"]], self._column[each["category_id"]]] = True
        return targets

    def places(self, root: Path) -> list[str]:
        """The paths of the images relative to `root`."""
        split = self.path.stem.removeprefix("instances_")
        here = self.path.parent.relative_to(root)
        folders = [here / name for name in ("", split, "images", f"images/{split}")]
        folders += [Path(name) for name in ("", split, "images", f"images/{split}")]
        files = [image["file_name"] for image in self.images]
        if wrong := next((name for name in files if "\0" in name or not name), None):
            raise NestKALAError(f"{self.path} has the file_name {wrong!r}")
        folder = next((folder for folder in folders if (root / folder / files[0]).is_file()), None)
        if folder is None:
            looked = ", ".join(dict.fromkeys(str(root / folder) for folder in folders))
            raise NestKALAError(f"{self.path}: no image file {files[0]!r} in {looked}")
        for name in files:
            if not (root / folder / name).is_file():
                raise NestKALAError(f"{self.path}: no image file {name!r} in {root / folder}")
        return [(folder / name).as_posix() for name in files]
