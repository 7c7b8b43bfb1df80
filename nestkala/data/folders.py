"""Class-folder trees: ROOT/CLASS/image, or ROOT/PART/CLASS/image, parts being `train`, `val` and the like."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..images.decoding import looks_like_image
from ..images.listing import LeftOut
from ..utils.errors import NestKALAError, unknown_name
from .class_names import check_class_names, one_form
from .dataset import FileDataset


def load_folders(root: Path, class_names: tuple[str, ...] | None = None) -> FileDataset:
    """The images of a class-folder tree, single-label, sorted; the names are paths relative to `root`.

    Where the first level holds nothing but folders of folders, it is taken for parts: the images of all parts
    form one set, classes of the same name being one. Hidden files, files without an image's suffix, pipes, devices and
    links back to a folder above are left out. Where `class_names` are given, they are the classes, and some may have no
    folder, or no image in it. Names that differ in Unicode's forms alone (`one_form`) are one class.

    Raises NestKALAError for folders of other classes than are given; or, where none are, where there are no class
    folders, only one, or one without an image, and for names that `check_class_names` refuses.
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
    """A line for each class whose folders are spelt in several of Unicode's forms."""
    spellings: dict[str, set[str]] = {}
    for folder in folders:
        spellings.setdefault(one_form(folder.name), set()).add(folder.name)
    return [
        f"note: {len(names)} spellings of the class {name!r} differ in Unicode's normalization alone, and are one class"
        for name, names in spellings.items()
        if len(names) > 1
    ]


def _classes(root: Path, images: Mapping[Path, Sequence[Path]], left_out: LeftOut) -> tuple[str, ...]:
    """Those that the class folders are called after, of which each must hold an image."""
    filled = {one_form(folder.name) for folder, found in images.items() if found}
    for folder in images:
        if one_form(folder.name) not in filled:
            others = f" (there are {left_out.formats_in_words()})" if left_out.other_formats else ""
            raise NestKALAError(
                f"class folder {str(folder)!r} holds no image{others}; the images belong into FOLDER/CLASS or "
                "FOLDER/PART/CLASS"
            )
    if len(filled) < 2:
        found = f"only the class folder {str(next(iter(images)))!r}" if images else "no class folder"
        raise NestKALAError(
            f"{found} found in {str(root)!r}; at least two are needed, as FOLDER/CLASS or FOLDER/PART/CLASS"
        )
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
    """Those in a folder; of other files what is a photograph all the same is counted."""
    images = []
    for path in folder.iterdir():
        if not looks_like_image(path):
            if left_out is not None and path.is_file():
                left_out.count(path.name)
        elif path.is_file() or not path.exists():  # a link to nothing is told where it is read; a pipe never ends
            images.append(path)
    return sorted(images)
