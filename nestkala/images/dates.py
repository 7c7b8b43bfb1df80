"""When photographs were taken."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .decoding import open_header

_EXIF, _DATE_TIME_ORIGINAL = 0x8769, 0x9003
"""The tag of the Exif IFD, and in it that of the date (CIPA DC-008, Exif 2.32, 4.6.5)."""


def with_date(file: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an image, as `images_below` gives it, with its `date`.

    Of the file only the header is read. The date is local time, such as "2024-05-17T08:30:00": when the photograph was
    taken, or when the file was last modified if the header does not say.
    """
    return {**metadata, "date": date_taken(file) or _in_iso(metadata["mtime_ns"])}


def date_taken(file: Path) -> str | None:
    """The date of exposure that an image file's EXIF data states; None if there is none, or none that can be read."""
    with contextlib.suppress(Exception), open_header(file) as image:  # Pillow raises nearly every type
        # Of a PNG Pillow would decode everything, to look behind the pixels as well.
        if image.format == "PNG" and "exif" not in image.info:
            return None
        text = str(image.getexif().get_ifd(_EXIF).get(_DATE_TIME_ORIGINAL, ""))
        return datetime.strptime(text.strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    return None


def _in_iso(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9).isoformat()
    except (OverflowError, OSError, ValueError):  # years that a calendar lacks
        return datetime.fromtimestamp(0).isoformat()
