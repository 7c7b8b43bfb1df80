"""Class-folder trees: ROOT/CLASS/image, or ROOT/PART/CLASS/image, with parts such as `train` and `val`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..images.decoding import looks_like_image
from ..images.listing import LeftOut
from ..utils.errors import NestKALAError, unknown_name
from .class_names import check_class_names, one_form
from .dataset import FileDataset


def load_folders(root: Path, class_names: tuple[str, ...] | None = None) -> FileDataset:
    """Load the images of a class-folder tree: single-label, sorted, named by their paths relative to `root`.

    If the first level holds only folders of folders, these are parts: the images of all parts form one set, and
    classes with the same name are merged. Hidden files, files without an image suffix, pipes, devices and links back to
    a parent folder are skipped. If `class_names` are given, they are the classes, and some may have no folder or an
    empty one. Names that differ only in Unicode form (`one_form`) are one class.

    Raises NestKALAError if there are folders for classes other than those given; without `class_names`, if there are
    fewer than two class folders, or one has no images; and for names that `check_class_names` refuses.
    """
    folders = _folders(root)
    if folders and all(_folders(folder) and not _images(folder) for folder in folders):
        folders = [class_folder for part in folders for class_folder in _folders(part)]
    left_out = LeftOut()
    images = {folder: _images(folder, left_out) for folder in folders}
    if class_names is None:
        class_names = _classes(root, images, left_out)
    for folder in folders:
        if one_form(folder.name) not in class_names:
            raise unknown_name(f"class folder in {str(root)!r}", folder.name, class_names)
    column = {name: number for number, name in enumerate(class_names)}
    labels = [column[one_form(folder.name)] for folder in folders for _ in images[folder]]
    return FileDataset(
        names=[image.relative_to(root).as_posix() for folder in folders for image in images[folder]],
        targets=np.array(labels, dtype=np.int64)[:, None] == np.arange(len(class_names)),
        class_names=class_names,
        notes=(*_joined(folders), *left_out.in_words()),
        root=root,
    )


def _joined(folders: Iterable[Path]) -> list[str]:
    """One line for each class whose folder names use several Unicode forms."""
    spellings: dict[str, set[str]] = {}
    for folder in folders:
        spellings.setdefault(one_form(folder.name), set()).add(folder.name)
    return [
        f"note: merged {len(names)} folder names of class {name!r} that differ only in Unicode normalization"
        for name, names in spellings.items()
        if len(names) > 1
    ]


def _classes(root: Path, images: Mapping[Path, Sequence[Path]], left_out: LeftOut) -> tuple[str, ...]:
    """The classes of the class folders, each of which must hold an image."""
    filled = {one_form(folder.name) for folder, found in images.items() if found}
    for folder in images:
        if one_form(folder.name) not in filled:
            others = f" (only {left_out.formats_in_words()})" if left_out.other_formats else ""
            raise NestKALAError(
                f"class folder {str(folder)!r} holds no images{others}; put images into FOLDER/CLASS or "
                "FOLDER/PART/CLASS"
            )
    if len(filled) < 2:
        found = f"only class folder {str(next(iter(images)))!r}" if images else "no class folders"
        raise NestKALAError(f"{found} found in {str(root)!r}; need at least two, as FOLDER/CLASS or FOLDER/PART/CLASS")
    check_class_names(filled, str(root))
    return tuple(sorted(filled))


def _folders(parent: Path) -> list[Path]:
    above = [parent.resolve(), *parent.resolve().parents]
    return sorted(
        path
        for path in parent.iterdir()
        if not path.name.startswith(".") and path.is_dir() and path.resolve() not in above
    )


def _images(folder: Path, left_out: LeftOut | None = None) -> list[Path]:
    """The images in a folder; photographs in unsupported formats are counted."""
    images = []
    for path in folder.iterdir():
        if not looks_like_image(path):
            if left_out is not None and path.is_file():
                left_out.count(path.name)
        elif path.is_file() or not path.exists():  # broken links fail when read; pipes never end
            images.append(path)
    return sorted(images)
