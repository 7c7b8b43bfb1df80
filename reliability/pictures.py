"""Image files made of noise, or chunk by chunk."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image


def noise(seed: int, size: int = 8) -> Image.Image:
    """A square RGB image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of the image as a file."""
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes, before: bytes = b"", depth: int = 8, color: int = 2) -> bytes:
    """A PNG file with this header and these compressed rows, valid or not, and chunks `before` them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
