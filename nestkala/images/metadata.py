"""Strip metadata from encoded images, for decoders that fail on it where libpng and libjpeg continue."""

import struct
import zlib
from collections.abc import Iterator

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_GRAY, _RGB, _PALETTE = 0, 2, 3
_EXIF, _LISTED = b"Exif\0\0", {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
"""Segments that specify how to read colors, by marker: their beginning and minimum length."""


def less_metadata(data: bytes) -> Iterator[bytes]:
    """Yield a PNG or JPEG file without most of its metadata, then without all of it; nothing for other formats.

    Valid data on how to read or show pixels is kept: transparency, color transforms, and the orientation, which is
    dropped only in the second attempt.
    """
    for keep in ((b"eXIf", _EXIF), ()):
        if data.startswith(_PNG):
            yield b"".join(_png_parts(data, keep))
        elif data.startswith(_JPEG):
            yield b"".join(_jpeg_parts(data, keep))


def _png_parts(data: bytes, keep: tuple[bytes, ...]) -> Iterator[bytes]:
    """Source: Portable Network Graphics (third edition), 5: a lower-case first letter marks an ancillary chunk."""
    yield _PNG
    place, colors = len(_PNG), -1
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + 12 + length]
        content = chunk[8 : 8 + length]
        if kind == b"IHDR" and length == 13:
            colors = content[9]
        is_sound = len(chunk) == 12 + length and chunk[-4:] == struct.pack(">I", zlib.crc32(kind + content))
        is_ancillary = bool(kind[0] & 0x20) or (kind == b"PLTE" and colors != _PALETTE)
        shows = kind in keep or (kind == b"tRNS" and _fits(length, colors))
        if not is_ancillary or (is_sound and shows):
            yield chunk
        place += len(chunk)
        if kind == b"IEND":
            break


def _fits(length: int, colors: int) -> bool:
    """Whether a transparency chunk of this length is valid for a color type."""
    return {_GRAY: length == 2, _RGB: length == 6, _PALETTE: 1 <= length <= 256}.get(colors, False)


def _jpeg_parts(data: bytes, keep: tuple[bytes, ...]) -> Iterator[bytes]:
    """Source: ITU-T T.81, B.1.1: a marker is 0xFF and a byte; most are followed by the length of their segment."""
    yield _JPEG
    place = len(_JPEG)
    while (start := data.find(b"\xff", place)) >= 0 and start + 4 <= len(data):
        marker = data[start + 1]
        if marker == 0xDA:  # the scan, which extends to the end
            yield data[start:]
            return
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:  # no segment: fill bytes, restarts and such
            place = start + (1 if marker == 0xFF else 2)
            continue
        length = max(2, struct.unpack_from(">H", data, start + 2)[0])
        content = data[start + 4 : start + 2 + length]
        begins, shortest = _LISTED.get(marker, (b"", 1 << 16))
        shows = content.startswith(begins) and len(content) >= shortest
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or shows or (marker == 0xE1 and content.startswith(keep)):
            yield data[start : start + 2 + length]
        place = start + 2 + length
