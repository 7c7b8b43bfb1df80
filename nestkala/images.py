"""Encoded image files to upright 8-bit RGB images."""

import contextlib
import threading
import warnings
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import NestKALAError, one_line

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif",
    ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm",
)  # fmt: skip
"""Suffixes, in lower case, by which image files in folders are told from others."""

FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
"""Those that are decoded, whatever a file is called. Pillow knows others, some of which start other programs."""

_NO_IMAGE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


def looks_like_image(path: Path) -> bool:
    """Whether a file's name is that of an image, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_below(name: str) -> bool:
    """Whether a name is that of a file in a folder or its subfolders, and leads to no place elsewhere."""
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def decode_image(data: bytes | Image.Image, name: str) -> Image.Image:
    """Decode the bytes of an image file, in one of `FORMATS`, to an 8-bit RGB image.

    An image that Pillow has opened already is treated by the same rules, and left as it is.

    The EXIF orientation is applied, transparency is composited on white, of an animation the first frame
    counts. Grey values of more than 8 bits are scaled: integers from 0..65535, floating-point ones from the
    smallest of 0..1, 0..255 and 0..65535 that holds them all, and values outside those ranges from their own
    minimum and maximum. Safe to call from several threads.

    Raises NestKALAError, which gives `name` and the reason, for data that is empty, truncated, no image, or
    of no pixels or more than Pillow accepts (twice `PIL.Image.MAX_IMAGE_PIXELS`).
    """
    try:
        with _muted, Image.open(BytesIO(data), formats=FORMATS) if isinstance(data, bytes) else data.copy() as image:
            image.load()
            if 0 in image.size:
                raise ValueError("it has no pixels")
            # Unreadable metadata is no reason to lose an image. In place, because Pillow may fail at writing
            # the metadata back, when the pixels are upright already.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
            return _to_rgb(image)
    except Exception as error:  # Pillow's decoders raise nearly every type on broken files
        raise NestKALAError(f"cannot decode image {name!r}: {_reason(data, error)}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _to_8_bit(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)  # in float32 the difference of two may overflow
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0:
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
        low, high = 0.0, next((white for white in whites if high <= white), high)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scale = 255 / (high - low) if high > low else 0.0
    return Image.fromarray(np.rint((values - low) * scale).astype(np.uint8))


def _reason(data: bytes | Image.Image, error: Exception) -> str:
    if data == b"":
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of a format that is read ({', '.join(FORMATS)})"
    return one_line(error)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that the header of an image file tells; None for what is no image."""
    try:
        with _muted, Image.open(BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # Pillow raises nearly every type on broken files
        return None


def thumbnail(file: Path | bytes, size: int) -> bytes | None:
    """A JPEG of an image file, or of its bytes, `size` pixels wide and high at most; None for what cannot be read."""
    try:
        image = decode_image(file if isinstance(file, bytes) else file.read_bytes(), "image")
    except (OSError, ValueError):  # ValueError: names that no file can have, and NestKALAError
        return None
    image.thumbnail((size, size))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def data_url(jpeg: bytes | None) -> str:
    """A JPEG as an address that holds it; None, what could not be read, as that of an empty picture."""
    return _NO_IMAGE if jpeg is None else f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


class _MutedPillow:
    """Mutes Pillow's warnings while any thread is inside.

    `warnings.catch_warnings` in every thread would not do: filters belong to the process, and threads that
    overlap restore one another's, which can leave warnings off for good.
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
