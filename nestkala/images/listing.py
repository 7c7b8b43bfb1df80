"""List the images below a folder, and record what was skipped."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..utils.errors import NestKALAError
from .decoding import IMAGE_SUFFIXES, looks_like_image
from .excludes import Excludes

_MOST_NAMED = 10
_RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 "
    ".srf .srw .x3f"
)
_SUFFIXES_OF = {
    "HEIC": ".heic .heif .hif",
    "AVIF": ".avif",
    "JPEG XL": ".jxl",
    "JPEG XR": ".jxr .wdp .hdp",
    "raw": _RAW,
    "Photoshop": ".psd .psb",
    "video": ".3gp .avi .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .webm .wmv",
}
_KINDS: Mapping[str, str] = {
    suffix: kind
    for kind, suffixes in _SUFFIXES_OF.items()
    for suffix in suffixes.split()
    if suffix not in IMAGE_SUFFIXES
}


def other_kind(name: str) -> str | None:
    """The kind of a photograph or video in an unsupported format, by its name; None for all other files."""
    return None if name.startswith(".") else _KINDS.get(PurePosixPath(name).suffix.lower())


@dataclass
class LeftOut:
    """What was skipped below a folder.

    Attributes:
        unlisted: {path relative to the folder: reason} of folders that cannot be listed completely, and of images that
            cannot be accessed, such as broken links. "." is the folder itself.
        other_formats: {kind: number} of photographs and videos in unsupported formats.
        linked_folders: number of links to folders, which are not followed.
        excluded: {"images": number, "folders": number} excluded by patterns; images in such folders are not counted.
    """

    unlisted: dict[str, str] = field(default_factory=dict)
    other_formats: dict[str, int] = field(default_factory=dict)
    linked_folders: int = 0
    excluded: dict[str, int] = field(default_factory=dict)

    def covers(self, name: str) -> bool:
        """Whether an image with this name may exist in a part that could not be listed."""
        if not self.unlisted:
            return False
        return any(str(path) in self.unlisted for path in (PurePosixPath(name), *PurePosixPath(name).parents))

    def count(self, name: str) -> None:
        """Count a file whose name is not that of an image."""
        if (kind := other_kind(name)) is not None:
            self.other_formats[kind] = self.other_formats.get(kind, 0) + 1

    def count_excluded(self, kind: str) -> None:
        """Count an excluded item; kind is "images" or "folders"."""
        self.excluded[kind] = self.excluded.get(kind, 0) + 1

    def add(self, other: "LeftOut", name: str = "") -> None:
        """Add what was skipped below another folder, whose images are named NAME/... here."""
        for path, why in other.unlisted.items():
            self.unlisted[str(PurePosixPath(name) / path)] = why
        for total, more in ((self.other_formats, other.other_formats), (self.excluded, other.excluded)):
            for kind, number in more.items():
                total[kind] = total.get(kind, 0) + number
        self.linked_folders += other.linked_folders

    def in_words(self) -> list[str]:
        """One line per kind of skipped item; empty if nothing was skipped."""
        named = list(self.unlisted.items())[:_MOST_NAMED]
        lines = [f"warning: cannot list {path!r}: {why}" for path, why in named]
        if more := len(self.unlisted) - len(named):
            lines.append(f"warning: cannot list {more} others")
        if self.other_formats:
            lines.append(f"note: skipped {self.formats_in_words()}")
        if self.linked_folders:
            lines.append(f"note: skipped {_counted(self.linked_folders, 'link')} to folders, which are not followed")
        if self.excluded:
            kinds = (
                _counted(self.excluded[kind], kind[:-1]) for kind in ("images", "folders") if kind in self.excluded
            )
            lines.append(f"note: skipped {' and '.join(kinds)} excluded by patterns")
        return lines

    def formats_in_words(self) -> str:
        """The number of files in unsupported formats, by format."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.other_formats.items()))
        files = _counted(sum(self.other_formats.values()), "file")
        advice = '; to read HEIC, pip install "nestkala[heic]"' if "HEIC" in self.other_formats else ""
        return f"{files} in unsupported formats ({kinds}){advice}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def images_below(folder: Path, left_out: LeftOut, exclude: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the images below a folder as relative paths with size and modification time, in a stable order.

    Hidden files and folders, pipes, devices, and files without an image suffix are skipped and not counted.

    Args:
        folder: folder to list. Files and folders that match its .nestkalaignore file are skipped.
        left_out: records what else is skipped, as the walk proceeds.
        exclude: additional patterns of files and folders to skip, as for `Excludes`.

    Raises:
        NestKALAError: the folder does not exist or cannot be listed, or a pattern is invalid.
    """
    if not folder.is_dir():
        raise NestKALAError(f"{folder} is not a folder")
    excludes = Excludes.of(folder, exclude)
    waiting = ["."]
    while waiting:
        parent = waiting.pop()
        found = _Found()
        try:
            with os.scandir(folder / parent) as entries:
                for entry in entries:
                    found.take(entry, parent, left_out, excludes)
        except OSError as error:
            if parent == "." and not found.images and not found.folders:
                raise NestKALAError(f"cannot list {folder}: {error.strerror}") from error
            if not isinstance(error, FileNotFoundError):  # deleted in the meantime
                left_out.unlisted[parent] = str(error.strerror)
        waiting += sorted(found.folders, reverse=True)
        yield from sorted(found.images, key=lambda image: image[0])


@dataclass
class _Found:
    """The contents of one folder, by path relative to the top folder."""

    images: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def take(self, entry: "os.DirEntry[str]", parent: str, left_out: LeftOut, excludes: Excludes) -> None:
        if entry.name.startswith("."):
            return
        name = entry.name if parent == "." else f"{parent}/{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                if excludes.leaves_out(name, is_folder=True):
                    left_out.count_excluded("folders")
                else:
                    self.folders.append(name)
                return
            if entry.is_symlink() and entry.is_dir():
                left_out.linked_folders += 1
                return
            if not looks_like_image(Path(entry.name)):
                left_out.count(entry.name)
                return
            if excludes.leaves_out(name):
                left_out.count_excluded("images")
                return
            status = entry.stat()
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError) and not entry.is_symlink()
            if not is_gone and looks_like_image(Path(entry.name)):
                left_out.unlisted[name] = str(error.strerror)
            return
        if stat.S_ISREG(status.st_mode):  # reading a pipe would never end
            self.images.append((name, {"size": status.st_size, "mtime_ns": status.st_mtime_ns}))


def emptied_folders(folder: Path, gone: list[str], here: Mapping[str, Any], at_least: int) -> list[str]:
    """Subfolders that still exist but have lost all their images, if these were at least `at_least`."""
    held = Counter(str(parent) for name in gone for parent in PurePosixPath(name).parents)
    filled = {str(parent) for name in here for parent in PurePosixPath(name).parents}
    emptied = [parent for parent, number in held.items() if number >= at_least and parent not in filled | {"."}]
    return sorted(parent for parent in emptied if (folder / parent).is_dir())
