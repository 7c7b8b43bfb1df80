"""The images below a folder, and what is left out there that somebody may miss."""

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
    """What a file's name says of a photograph, or a video, in a format that is not read here; None for all else."""
    return None if name.startswith(".") else _KINDS.get(PurePosixPath(name).suffix.lower())


@dataclass
class LeftOut:
    """What was passed over below a folder.

    Attributes:
        unlisted: {path relative to the folder: why}, of folders that cannot be listed, or not to their end, and of
            images that cannot be looked at, such as a link to nothing. "." is the folder itself.
        other_formats: {kind: number}, of photographs and videos in formats that are not read here.
        linked_folders: number of links to folders, which are not followed.
        excluded: {"images": number, "folders": number} that patterns exclude; images in such folders are not counted.
    """

    unlisted: dict[str, str] = field(default_factory=dict)
    other_formats: dict[str, int] = field(default_factory=dict)
    linked_folders: int = 0
    excluded: dict[str, int] = field(default_factory=dict)

    def covers(self, name: str) -> bool:
        """Whether an image of this name may be there for all that was seen."""
        if not self.unlisted:
            return False
        return any(str(path) in self.unlisted for path in (PurePosixPath(name), *PurePosixPath(name).parents))

    def count(self, name: str) -> None:
        """Take notice of a file that is no image by its name."""
        if (kind := other_kind(name)) is not None:
            self.other_formats[kind] = self.other_formats.get(kind, 0) + 1

    def count_excluded(self, kind: str) -> None:
        """Take notice of something excluded, of "images" or "folders"."""
        self.excluded[kind] = self.excluded.get(kind, 0) + 1

    def add(self, other: "LeftOut", name: str = "") -> None:
        """Take in what was left out below another folder, whose images are called NAME/... here."""
        for path, why in other.unlisted.items():
            self.unlisted[str(PurePosixPath(name) / path)] = why
        for total, more in ((self.other_formats, other.other_formats), (self.excluded, other.excluded)):
            for kind, number in more.items():
                total[kind] = total.get(kind, 0) + number
        self.linked_folders += other.linked_folders

    def in_words(self) -> list[str]:
        """A line for each kind of thing; none where nothing was left out."""
        named = list(self.unlisted.items())[:_MOST_NAMED]
        lines = [f"warning: cannot list {path!r}: {why}" for path, why in named]
        if more := len(self.unlisted) - len(named):
            lines.append(f"warning: cannot list {more} others")
        if self.other_formats:
            lines.append(f"note: left out {self.formats_in_words()}")
        if self.linked_folders:
            lines.append(f"note: left out {_counted(self.linked_folders, 'link')} to folders, which are not followed")
        if self.excluded:
            kinds = (
                _counted(self.excluded[kind], kind[:-1]) for kind in ("images", "folders") if kind in self.excluded
            )
            lines.append(f"note: left out {' and '.join(kinds)} that patterns exclude")
        return lines

    def formats_in_words(self) -> str:
        """How many files of which formats that are not read here."""
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.other_formats.items()))
        files = _counted(sum(self.other_formats.values()), "file")
        advice = '; pip install "nestkala[heic]" reads HEIC' if "HEIC" in self.other_formats else ""
        return f"{files} of formats that are not read ({kinds}){advice}"


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def images_below(folder: Path, left_out: LeftOut, exclude: Iterable[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The images below a folder by path relative to it, with size and time of modification, in a stable order.

    Hidden files and folders, pipes, devices, and files without a photograph's suffix are left out and not counted.

    Args:
        folder: to look through. What the patterns of a file .nestkalaignore in it match is left out.
        left_out: takes what else is left out, as far as the walk has come.
        exclude: further patterns of files and folders to leave out, as for `Excludes`.

    Raises:
        NestKALAError: no such folder, one that cannot be listed, or patterns that `Excludes` refuses.
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
            if not isinstance(error, FileNotFoundError):  # which is deleted meanwhile
                left_out.unlisted[parent] = str(error.strerror)
        waiting += sorted(found.folders, reverse=True)
        yield from sorted(found.images, key=lambda image: image[0])


@dataclass
class _Found:
    """What one folder holds, by path relative to the first."""

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
        if stat.S_ISREG(status.st_mode):  # a pipe would be read for ever
            self.images.append((name, {"size": status.st_size, "mtime_ns": status.st_mtime_ns}))


def emptied_folders(folder: Path, gone: list[str], here: Mapping[str, Any], at_least: int) -> list[str]:
    """Subfolders that are there and hold no image any more, where so many at least of those that are gone were."""
    held = Counter(str(parent) for name in gone for parent in PurePosixPath(name).parents)
    filled = {str(parent) for name in here for parent in PurePosixPath(name).parents}
    emptied = [parent for parent, number in held.items() if number >= at_least and parent not in filled | {"."}]
    return sorted(parent for parent in emptied if (folder / parent).is_dir())
