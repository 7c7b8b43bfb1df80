"""Decode image files to upright 8-bit RGB images."""

import contextlib
import threading
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from ..utils.errors import NestKALAError, one_line
from .metadata import less_metadata

try:
    from pillow_heif import register_heif_opener
except ImportError:  # the extra `heic`
    _HEIF: tuple[str, ...] = ()
else:
    register_heif_opener()
    _HEIF = ("HEIF",)
_AVIF = ("AVIF",) if features.check("avif") else ()

FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", *_AVIF, "GIF", "BMP", "TIFF", "PPM", *_HEIF)
"""Formats to decode, whatever the file name. Pillow supports others, some of which start other programs."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".png", ".apng", ".webp"),
    *(".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm"),
    *(".avif" for _ in _AVIF),
    *(suffix for _ in _HEIF for suffix in (".heic", ".heif", ".hif")),
)
"""Lowercase suffixes that identify image files in folders."""

_HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1", b"hevc"))
"""How HEIC files begin, after four bytes."""
_MARGIN = 2
"""A JPEG decoded at a reduced scale keeps at least this many times the needed pixels of its shorter side."""
_BAND = 1 << 20
"""Number of pixels of more than 8 bits that are scaled at a time."""
_NO_IMAGE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


def looks_like_image(path: Path) -> bool:
    """Whether a file has the name of an image and is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_below(name: str) -> bool:
    """Whether a relative name stays inside its folder and subfolders."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def decode_image(data: bytes | Image.Image, name: str, side: int | None = None) -> Image.Image:
    """Decode the bytes of an image file in one of `FORMATS` to an 8-bit RGB image.

    Images already opened by Pillow follow the same rules and are not modified.

    The EXIF orientation is applied, transparency is composited on white, and only the first frame of an animation is
    used. Gray values of more than 8 bits are scaled: integers from 0..65535 (12-bit ones from 0..4095), floats from the
    smallest of 0..1, 0..255 and 0..65535 that contains them all, and values outside those ranges from their own minimum
    and maximum. Like libpng and libjpeg, it ignores metadata that is broken or too long for Pillow. Thread-safe.

    Args:
        data: bytes of the file, or a Pillow image.
        name: name to use in error messages.
        side: upper bound on the size that the shorter side will be scaled to, in pixels. A large enough JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time, keeping at least twice that many pixels
            of its shorter side. None decodes at full size.

    Raises NestKALAError, with `name` and the reason, if the data is empty, truncated or not an image, or has no pixels
    or more than Pillow accepts (twice `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    try:
        return _decoded(data, side)
    except Exception as error:  # Pillow's decoders raise nearly every type on broken files
        for rest in less_metadata(data) if isinstance(data, bytes) else ():
            with contextlib.suppress(Exception):
                return _decoded(rest, side)
        raise NestKALAError(f"cannot decode image {name!r}: {_reason(data, error)}") from error


def open_image(data: bytes) -> Image.Image:
    """Open an image file in one of `FORMATS`, reading only the header. Raises Pillow's exceptions."""
    with _muted:
        try:
            return Image.open(BytesIO(data), formats=FORMATS)
        except Exception:  # Pillow raises nearly every type on broken files
            for rest in less_metadata(data):
                with contextlib.suppress(Exception):
                    return Image.open(BytesIO(rest), formats=FORMATS)
            raise


def open_header(file: Path) -> Image.Image:
    """Like `open_image`, but reads no more than the header from disk. Raises OSError and Pillow's exceptions."""
    with _muted:
        return Image.open(file, formats=FORMATS)


def _decoded(data: bytes | Image.Image, side: int | None) -> Image.Image:
    with _muted, contextlib.ExitStack() as stack:
        opened = stack.enter_context(Image.open(BytesIO(data), formats=FORMATS)) if isinstance(data, bytes) else data
        values = _Values.of(opened)
        image = opened if isinstance(data, bytes) else opened.copy()
        if side is not None:
            _reduce(image, side)
        image.load()
        if 0 in image.size:
            raise ValueError("it has no pixels")
        # Unreadable metadata is no reason to lose an image. In place, because Pillow may fail to write the metadata
        # back after it has already rotated the pixels.
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image, values)


def _reduce(image: Image.Image, side: int) -> None:
    """Set an opened JPEG to decode at the smallest scale that keeps `_MARGIN` times the side."""
    width, height = image.size
    if isinstance(image, JpegImageFile):
        scale = next((scale for scale in (8, 4, 2) if min(width, height) >= scale * _MARGIN * side), 1)
        image.draft(None, (width // scale, height // scale))


@dataclass(frozen=True)
class _Values:
    """Facts about a file's values that Pillow ignores.

    white: the largest value of integers of more than 8 bits.
    is_inverted: whether 0 means white in such a file.
    transparent: the transparent gray value or color, in terms of the image's values in Pillow.
    """

    white: float
    is_inverted: bool
    transparent: int | tuple[int, ...] | None

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """Read them before the image is loaded, while it still knows how values are stored in the file."""
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(258, (16,))[0]
        return cls(65535 if bits > 16 else 2**bits - 1, tags.get(262) == 0, _transparent(image))


_IN_8_BITS: Mapping[str, Callable[[int], int]] = {
    "1": lambda value: value,  # already scaled by Pillow
    "L;2": lambda value: (value & 0x3) * 0x55,
    "L;4": lambda value: (value & 0xF) * 0x11,
    "RGB;16B": lambda value: value >> 8,  # Pillow drops the lower byte of pixels
    "I;16B": lambda value: value,
}
"""Transparent value in a PNG -> value of its pixels, by storage format; otherwise, its last 8 bits."""


def _transparent(image: Image.Image) -> int | tuple[int, ...] | None:
    key = image.info.get("transparency")
    if not isinstance(key, int | tuple):
        return None
    tiles = getattr(image, "tile", [])  # empty for loaded images
    if image.format != "PNG" or image.mode == "P" or not tiles:
        return key
    raw = tiles[0].args
    scaled = _IN_8_BITS.get(raw if isinstance(raw, str) else "", lambda value: value & 0xFF)
    return scaled(key) if isinstance(key, int) else tuple(map(scaled, key))


def _to_rgb(image: Image.Image, values: _Values) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image, values).convert("RGB")
    if image.has_transparency_data:
        if values.transparent is not None:
            image.info["transparency"] = values.transparent
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image, values: _Values) -> Image.Image:
    pixels = np.asarray(image)
    gray = np.empty(pixels.size, np.uint8)
    flat, bands = pixels.reshape(-1), [slice(start, start + _BAND) for start in range(0, pixels.size, _BAND)]
    low, high = _range(flat[band] for band in bands)
    if low >= 0:
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (values.white,)
        low, high = 0.0, next((white for white in whites if high <= white), high)
    scale = 255 / (high - low) if high > low else 0.0
    for band in bands:  # differences may overflow in float32, and all pixels at once would take much memory
        finite = np.nan_to_num(flat[band].astype(np.float64), nan=low, posinf=high, neginf=low)
        gray[band] = np.rint((finite - low) * scale)
        if values.is_inverted:
            gray[band] = 255 - gray[band]
        if values.transparent is not None:
            gray[band][flat[band] == values.transparent] = 255
    return Image.fromarray(gray.reshape(pixels.shape))


def _range(bands: Iterable[np.ndarray]) -> tuple[float, float]:
    """The smallest and largest finite values; 0 and 1 if there are none."""
    finite = [values for band in bands if (values := band[np.isfinite(band)]).size]
    if not finite:
        return 0.0, 1.0
    return float(min(values.min() for values in finite)), float(max(values.max() for values in finite))


def _reason(data: bytes | Image.Image, error: Exception) -> str:
    if data == b"":
        return "the file is empty"
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, UnidentifiedImageError) and isinstance(data, bytes) and data[4:12] in _HEIC and not _HEIF:
        return 'to read HEIC, pip install "nestkala[heic]"'
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in a supported format ({', '.join(FORMATS)})"
    return one_line(error)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels from the header of an image file; None if it is not an image."""
    try:
        with open_image(data) as image:
            return image.size
    except Exception:  # Pillow raises nearly every type on broken files
        return None


def thumbnail(file: Path | bytes, size: int) -> bytes | None:
    """A JPEG of an image file or its bytes, at most `size` pixels wide and high; None if it cannot be read."""
    try:
        image = decode_image(file if isinstance(file, bytes) else file.read_bytes(), "image", size)
    except (OSError, ValueError):  # ValueError: impossible file names, and NestKALAError
        return None
    image.thumbnail((size, size))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def data_url(jpeg: bytes | None) -> str:
    """A JPEG as a data URL; for None (unreadable images), the URL of an empty picture."""
    return _NO_IMAGE if jpeg is None else f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


class _MutedPillow:
    """Mutes Pillow's warnings while any thread is inside.

    `warnings.catch_warnings` in every thread would not work: filters belong to the process, and overlapping threads
    restore one another's, which can leave warnings off permanently.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(kind, error, trace)


_muted = _MutedPillow()
