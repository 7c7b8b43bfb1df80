"""Small files that make an image decoder use much memory, or start another program."""

import struct
import zlib

from PIL import Image

from .pictures import chunk, encoded, png


def bombs() -> dict[str, bytes]:
    """{description: file}, each of which must be refused before it is decoded."""
    return {
        "PNG, 30,000 x 30,000": _png(30_000, 30_000),
        "PNG, 2**31 - 1 pixels wide": _png(2**31 - 1, 1),
        "PNG, 8,000 x 8,000": _png(8_000, 8_000),
        "JPEG, 65,500 x 65,500": _jpeg(65_500),
        "JPEG 2000, 60,000 x 60,000": _jpeg2000(60_000),
        "GIF, 65,535 x 65,535": _gif(65_535),
        "WebP, 16,384 x 16,384": _webp(16_384),
        "TIFF, 60,000 x 60,000": _tiff(60_000),
        "BMP, 100,000 x 100,000": _bmp(100_000),
        "PPM, 100,000 x 100,000": b"P6 100000 100000 255\n" + bytes(50),
        "EPS, which calls Ghostscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
        "PDF": b"%PDF-1.7\n",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "PSD, 30,000 x 30,000": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30_000, 30_000, 8, 3) + bytes(50),
        "ICNS": b"icns" + bytes(50),
        "pickle": b"cposix\nsystem\n(S'false'\ntR.",
        "text": b"no image at all",
        "empty": b"",
    }


def largest_taken() -> dict[str, bytes]:
    """Images just below the server's limit of 50 million pixels that need the most memory for their size."""
    return {
        "PNG of 16-bit gray": _png(7_071, 7_071, depth=16, color=0),
        "PNG with transparency": _png(7_071, 7_071, depth=8, color=6),
        "PNG, 1,000,000 x 1": _png(1_000_000, 1, depth=8),
        "PNG, 50,000,000 x 1": _png(50_000_000, 1, depth=8),
        "PNG, 200 MB of text": _png(10, 10, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9)), depth=8),
        "GIF": encoded(Image.new("L", (7_071, 7_071)), "GIF"),
        "TIFF of floating-point numbers": encoded(
            Image.new("F", (7_071, 7_071)), "TIFF", compression="tiff_adobe_deflate"
        ),
    }


def _png(width: int, height: int, before: bytes = b"", depth: int = 1, color: int = 0) -> bytes:
    """Black; for large sizes, only the header and the first rows, since the rest is never decoded."""
    channels = {0: 1, 6: 4}[color]
    row = 1 + -(-width * depth * channels // 8)
    packer = zlib.compressobj(9)
    rows = height if width * height <= 50_000_000 else 1
    packed = b"".join(packer.compress(bytes(min(row, 50_000_001))) for _ in range(rows)) + packer.flush()
    return png(width, height, packed, before, depth, color)


def _jpeg(size: int) -> bytes:
    small = encoded(Image.new("L", (16, 16)), "JPEG")
    return small.replace(struct.pack(">BHH", 8, 16, 16), struct.pack(">BHH", 8, size, size))


def _jpeg2000(size: int) -> bytes:
    small = encoded(Image.new("L", (16, 16)), "JPEG2000")
    return small.replace(struct.pack(">II", 16, 16), struct.pack(">II", size, size))


def _gif(size: int) -> bytes:
    screen = struct.pack("<HHBBB", size, size, 0, 0, 0)
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, size, size, 0) + b"\x08" + bytes(50)


def _webp(size: int) -> bytes:
    image = b"\x2f" + struct.pack("<I", (size - 1) | (size - 1) << 14) + bytes(51)
    return b"RIFF" + struct.pack("<I", 12 + len(image)) + b"WEBPVP8L" + struct.pack("<I", len(image)) + image


def _tiff(size: int) -> bytes:
    small = encoded(Image.new("L", (999, 999)), "TIFF", compression="tiff_adobe_deflate")
    return small.replace(struct.pack("<HHIHH", 256, 3, 1, 999, 0), struct.pack("<HHII", 256, 4, 1, size)).replace(
        struct.pack("<HHIHH", 257, 3, 1, 999, 0), struct.pack("<HHII", 257, 4, 1, size)
    )


def _bmp(size: int) -> bytes:
    small = encoded(Image.new("RGB", (999, 999)), "BMP")[:100]
    return small.replace(struct.pack("<ii", 999, 999), struct.pack("<ii", size, size))
