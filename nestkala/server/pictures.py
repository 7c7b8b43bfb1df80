"""The images of an index for the page: thumbnails, large versions, original files, and facts."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ..images.decoding import open_image, thumbnail
from ..search.places import ImageFolders

SMALL, LARGE = 320, 1600
"""Maximum width and height of thumbnails and enlarged images, in pixels."""
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag and its values for images rotated by 90 degrees."""


class Pictures:
    """Images by name. None for files that are outside the folders or not images."""

    def __init__(self, folders: ImageFolders) -> None:
        self._folders, self._roots = folders, [path.resolve() for path in folders.paths.values()]
        self._small, self._large = (lru_cache(maxsize=kept)(_rendition) for kept in (1024, 16))

    def small(self, name: str) -> bytes | None:
        """A thumbnail as JPEG."""
        path = self._inside(name)
        return None if path is None else self._small(path, _version(path), SMALL)

    def large(self, name: str) -> bytes | None:
        """A screen-sized version as JPEG, without metadata."""
        path = self._inside(name)
        return None if path is None else self._large(path, _version(path), LARGE)

    def original(self, name: str) -> tuple[Path, str] | None:
        """The original file, and its media type detected from its contents."""
        path = self._inside(name)
        try:
            if path is None:
                return None
            with open_image(path.read_bytes()) as image:
                return path, Image.MIME.get(image.format or "", "application/octet-stream")
        except Exception:  # Pillow raises nearly every type on broken files
            return None

    def facts(self, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """Facts about an image.

        Args:
            name: name of the image.
            metadata: its metadata in the index.

        Returns:
            "date" in ISO format; "taken", whether it is when the photograph was taken rather than when the file was
            modified; "width" and "height" of the upright image in pixels; "bytes". None for unknown values.
        """
        width, height, size = None, None, None
        if (path := self._inside(name)) is not None:
            try:
                data = path.read_bytes()
                size = len(data)
                with open_image(data) as image:
                    width, height = image.size
                    if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                        width, height = height, width
            except Exception:  # as above; keep what is known so far
                pass
        date, taken = _date(metadata)
        return {"date": date, "taken": taken, "width": width, "height": height, "bytes": size}

    def _inside(self, name: str) -> Path | None:
        """The file of a name; None if it is not a file or lies outside the folders, by name or through a link."""
        try:
            file = self._folders.file(name)
            path = None if file is None else file.resolve()
            return path if path is not None and any(map(path.is_relative_to, self._roots)) and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # impossible file names, circular links
            return None


def _rendition(path: Path, _: int, size: int) -> bytes | None:
    return thumbnail(path, size)


def _version(path: Path) -> int:
    """A number that changes with the contents, so that a replaced file is not served from the cache."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _date(metadata: dict[str, Any]) -> tuple[str | None, bool]:
    try:
        saved = datetime.fromtimestamp(metadata["mtime_ns"] // 10**9).isoformat()
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        saved = None
    if isinstance(date := metadata.get("date"), str) and date:
        return date, date != saved  # an index may store the file's time if the photograph has no date
    return saved, False
