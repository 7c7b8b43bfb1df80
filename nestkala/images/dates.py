"""When photographs were taken."""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from .decoding import open_header

_EXIF, _DATE_TIME_ORIGINAL = 0x8769, 0x9003
"""The tags of the Exif IFD and of the date in it (CIPA DC-008, Exif 2.32, 4.6.5)."""


def with_date(file: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of an image from `images_below`, plus its `date`.

    Only the header of the file is read. The date is local time, such as "2024-05-17T08:30:00": when the photograph was
    taken, or, if the header does not say, when the file was last modified.
    """
    return {**metadata, "date": date_taken(file) or _in_iso(metadata["mtime_ns"])}


def date_taken(file: Path) -> str | None:
    """The date of exposure in an image file's EXIF data; None if there is no readable one."""
    with contextlib.suppress(Exception), open_header(file) as image:  # Pillow raises nearly every type
        # Pillow would decode a whole PNG, since EXIF data may also follow the pixels.
        if image.format == "PNG" and "exif" not in image.info:
            return None
        text = str(image.getexif().get_ifd(_EXIF).get(_DATE_TIME_ORIGINAL, ""))
        return datetime.strptime(text.strip("\0 ")[:19], "%Y:%m:%d %H:%M:%S").isoformat()
    return None


def _in_iso(mtime_ns: int) -> str:
    try:
        return datetime.fromtimestamp(mtime_ns // 10**9).isoformat()
    except (OverflowError, OSError, ValueError):  # years outside the calendar
        return datetime.fromtimestamp(0).isoformat()
