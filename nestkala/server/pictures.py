"""The images of an index as the page shows them: small, large, as they are, and described."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from ..images.decoding import open_image, thumbnail
from ..search.places import ImageFolders

SMALL, LARGE = 320, 1600
"""Pixels of a thumbnail and of an enlarged image, wide and high at most."""
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values for images that are turned by a quarter."""


class Pictures:
    """Images by name. Whatever leads out of the folders, or is no image, is None."""

    def __init__(self, folders: ImageFolders) -> None:
        self._folders, self._roots = folders, [path.resolve() for path in folders.paths.values()]
        self._small, self._large = (lru_cache(maxsize=kept)(_rendition) for kept in (1024, 16))

    def small(self, name: str) -> bytes | None:
        """A thumbnail, JPEG."""
        path = self._inside(name)
        return None if path is None else self._small(path, _version(path), SMALL)

    def large(self, name: str) -> bytes | None:
        """The image as large as a screen, JPEG without metadata."""
        path = self._inside(name)
        return None if path is None else self._large(path, _version(path), LARGE)

    def original(self, name: str) -> tuple[Path, str] | None:
        """The file itself, and its media type by what it holds."""
        path = self._inside(name)
        try:
            if path is None:
                return None
            with open_image(path.read_bytes()) as image:
                return path, Image.MIME.get(image.format or "", "application/octet-stream")
        except Exception:  # Pillow raises nearly every type on broken files
            return None

    def facts(self, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """What can be said of an image.

        Args:
            name: of the image.
            metadata: that the index has of it.

        Returns:
            "date", ISO text, and whether it was "taken" then, or the file changed; "width" and "height" in pixels, of
            the upright image; "bytes". None for what is not known.
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
            except Exception:  # as above; what is known by then is said
                pass
        date, taken = _date(metadata)
        return {"date": date, "taken": taken, "width": width, "height": height, "bytes": size}

    def _inside(self, name: str) -> Path | None:
        """The file of a name; None for one outside the folders, by whatever name or link, and for what is no file."""
        try:
            file = self._folders.file(name)
            path = None if file is None else file.resolve()
            return path if path is not None and any(map(path.is_relative_to, self._roots)) and path.is_file() else None
        except (OSError, ValueError, RuntimeError):  # names that no file can have, links in a circle
            return None


def _rendition(path: Path, _: int, size: int) -> bytes | None:
    return thumbnail(path, size)


def _version(path: Path) -> int:
    """Another number for another content, so that what is kept of a file is not shown of its successor."""
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
        return date, date != saved  # an index may keep the time of the file where the photograph says none
    return saved, False
