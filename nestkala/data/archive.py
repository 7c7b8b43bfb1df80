"""Unlabeled images in addition to labeled ones: the archive that will be searched."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..images.listing import LeftOut, images_below
from ..utils.errors import NestKALAError
from .dataset import ARCHIVE, FileDataset, ImageDataset
from .formats import images_of
from .lists import is_list_folder, lines, load_lists

_PREFIX = f"{ARCHIVE}//"  # no path in a folder or list has two slashes there
_LABELS = re.compile(r"(\s+[01])+\s*$")


@dataclass(frozen=True, eq=False, kw_only=True)
class _WithArchive(FileDataset):
    """Labeled images below `root`, and images below `archive`, whose names start with a prefix."""

    archive: Path

    def path(self, index: int) -> Path:
        name = self.names[index]
        return self.archive / name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else self.root / name


def no_images(class_names: tuple[str, ...]) -> FileDataset:
    """A data set that has only classes."""
    return FileDataset(names=[], targets=np.zeros((0, len(class_names)), bool), class_names=class_names, root=Path())


def with_archive(labeled: ImageDataset, archive: Path) -> FileDataset:
    """The labeled images and, as the part `ARCHIVE`, those of an archive except for the labeled files.

    Args:
        labeled: labeled images, which must be files.
        archive: a folder of images at any depth, a folder with lists (see `lists`; labels are ignored), a manifest or
            COCO annotations (see `formats`; likewise), or a text file with one image path per line, relative to the
            file's folder and optionally followed by labels as in lists. Whether the images exist and can be read is not
            checked.

    Raises:
        NestKALAError: the labeled images are not files; the archive does not exist, is malformed, or has no unlabeled
            images.
    """
    if not isinstance(labeled, FileDataset):
        raise NestKALAError("an archive needs labeled images in files: set data to a folder of images, or to none")
    left_out = LeftOut()
    root, names = _listed(archive.expanduser(), left_out)
    files = {os.path.realpath(labeled.path(index)) for index in range(len(labeled))}
    added = []
    for name in names:
        file = os.path.realpath(root / name)
        if file not in files:
            files.add(file)
            added.append(_PREFIX + name)
    if not names:
        others = f", only {left_out.formats_in_words()}" if left_out.other_formats else ""
        raise NestKALAError(f"the archive {archive} holds no images{others}")
    if not added:
        raise NestKALAError(f"the archive {archive} holds no images other than the labeled ones")
    targets = np.zeros((len(labeled) + len(added), len(labeled.class_names)), bool)
    targets[: len(labeled)] = labeled.targets
    return _WithArchive(
        names=[*labeled.names, *added],
        targets=targets,
        class_names=labeled.class_names,
        parts={**labeled.parts, ARCHIVE: np.arange(len(labeled), len(targets))},
        notes=(*labeled.notes, *(f"{line} (archive)" for line in left_out.in_words())),
        root=labeled.root,
        archive=root,
    )


def _listed(archive: Path, left_out: LeftOut) -> tuple[Path, Sequence[str]]:
    """A folder and the images of the archive, as paths relative to it."""
    if archive.is_dir():
        if is_list_folder(archive):
            return archive, load_lists(archive).names
        return archive, [name for name, _ in images_below(archive, left_out)]
    if (named := images_of(str(archive))) is not None:
        return named
    if not archive.is_file():
        raise NestKALAError(f"archive: no folder or file {archive}")
    names = [_path(archive.parent, line.strip()) for _, line in lines(archive) if "\0" not in line]
    if names and not any((archive.parent / name).is_file() for name in names):
        raise NestKALAError(
            f"none of the {len(names)} images listed in {archive} exists, starting with {names[0]!r}; paths "
            f"must be relative to {archive.parent}"
        )
    return archive.parent, names


def _path(folder: Path, line: str) -> str:
    return line if (folder / line).is_file() else _LABELS.sub("", line)
