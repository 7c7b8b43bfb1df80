import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from nestkala.errors import NestKALAError
from nestkala.images import decode_image


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data, "an image")
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, chunks: bytes = b"") -> bytes:
    """A PNG written from its specification, without Pillow."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert not caught


def test_grey_becomes_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (decoded(encoded(Image.fromarray(grey))) == grey[:, :, None]).all()


def test_rgb_is_kept() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for form in ("PNG", "BMP", "PPM", "TIFF"):
        assert (decoded(encoded(Image.fromarray(pixels), form)) == pixels).all()


def test_one_bit() -> None:
    assert decoded(encoded(Image.fromarray(np.array([[True, False]])))).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_grey_tiff_is_scaled_not_clipped(byte_order: str) -> None:
    values = np.array([0, 128, 257, 257 * 77, 40000, 65535])
    pixels = values.astype(byte_order + "u2").tobytes()
    mode = "I;16" if byte_order == "<" else "I;16B"
    data = encoded(Image.frombytes(mode, (6, 1), pixels), "TIFF")
    assert decoded(data)[0, :, 0].tolist() == [0, 0, 1, 77, 156, 255]


def test_16_bit_grey_png() -> None:
    rows = b"\0" + struct.pack(">4H", 0, 1000, 257 * 200, 65535)
    assert decoded(png(4, 1, 16, 0, rows))[0, :, 1].tolist() == [0, 4, 200, 255]


def test_16_bit_pgm() -> None:
    data = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 9, 65535)
    assert decoded(data)[0, :, 2].tolist() == [0, 9, 255]


def test_16_bit_rgb_png() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 257 * 128, 257, 257 * 2, 257 * 3)
    assert decoded(png(2, 1, 16, 2, rows)).tolist() == [[[255, 0, 128], [1, 2, 3]]]


def test_32_bit_grey_is_stretched_from_its_own_range() -> None:
    values = np.array([[0, 1_000_000, 5_000_000]], dtype=np.int32)
    assert decoded(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.2, 1], [0, 51, 255]),
        ([0, 51, 102], [0, 51, 102]),
        ([0, 257, 257 * 3], [0, 1, 3]),
        ([-1, 0, 4], [0, 51, 255]),
        ([0, 1e6, 5e6], [0, 51, 255]),
        ([np.nan, 0.2, np.inf], [0, 51, 255]),
        ([-3, -3, -3], [0, 0, 0]),
    ],
)
def test_floating_point_grey(values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert decoded(data)[0, :, 0].tolist() == expected


def test_cmyk() -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    colours = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
    tiff = encoded(Image.fromarray(inks, "CMYK"), "TIFF")
    assert decoded(tiff)[0].tolist() == colours
    blocks = np.repeat(np.repeat(inks, 8, axis=0), 8, axis=1)
    jpeg = encoded(Image.fromarray(blocks, "CMYK"), "JPEG", quality=100)
    assert np.abs(decoded(jpeg)[4, 4::8].astype(int) - colours).max() <= 4


def test_alpha_is_composited_on_white() -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [200, 100, 0, 255], [255, 0, 0, 127]]], dtype=np.uint8)
    exact = [[255] * 3, [204] * 3, [200, 100, 0], [255, 128, 128]]
    assert np.abs(decoded(encoded(Image.fromarray(pixels)))[0].astype(int) - exact).max() <= 1


def test_grey_with_alpha() -> None:
    pixels = np.array([[[0, 0], [0, 51], [7, 255]]], dtype=np.uint8)
    assert decoded(encoded(Image.fromarray(pixels)))[0, :, 0].tolist() == [255, 204, 7]


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))


@pytest.mark.parametrize(
    ("transparency", "expected"),
    [
        (b"", [[255, 0, 0], [0, 0, 255]]),
        (chunk(b"tRNS", bytes([0])), [[255, 255, 255], [0, 0, 255]]),
        (chunk(b"tRNS", bytes([255, 51])), [[255, 0, 0], [204, 204, 255]]),
    ],
)
def test_palette(transparency: bytes, expected: list[list[int]]) -> None:
    assert decoded(png(2, 1, 8, 3, b"\0\0\1", PALETTE + transparency))[0].tolist() == expected


def test_palette_with_alpha_channel() -> None:
    image = Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], dtype=np.uint8)).convert("PA")
    assert decoded(encoded(image, "TIFF"))[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_transparent_colour() -> None:
    rows = b"\0" + bytes([1, 2, 3, 4, 5, 6])
    transparency = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert decoded(png(2, 1, 8, 2, rows, transparency))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


# The EXIF specification: which side of the scene the file's first row and first column show.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored.T[:, ::-1],
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored.T[::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("form", "scale", "dtype"),
    [
        ("JPEG", 1, np.uint8),
        ("PNG", 1, np.uint8),
        ("PNG", 257, np.uint16),
        ("TIFF", 1, np.uint8),
        ("TIFF", 257, np.uint16),
    ],
)
def test_exif_orientation(orientation: int, form: str, scale: int, dtype: type) -> None:
    stored = np.kron(np.arange(0, 120, 20).reshape(2, 3), np.ones((8, 8), dtype=int))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray((stored * scale).astype(dtype)), form, exif=exif)
    upright = UPRIGHT[orientation](stored)
    assert np.abs(decoded(data).astype(int) - upright[:, :, None]).max() <= (form == "JPEG")


def test_corrupt_metadata_does_not_lose_the_image() -> None:
    pixels = Image.new("RGB", (8, 8), (100, 150, 200))
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\xff\xff\xff\xff"):
        assert np.abs(decoded(encoded(pixels, "JPEG", exif=exif)).astype(int) - [100, 150, 200]).max() <= 3


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_animations(form: str) -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(first, form, save_all=True, append_images=[second], **options)
    assert (decoded(data) == (255, 0, 0)).all()


def bomb() -> bytes:
    return png(30_000, 30_000, 8, 2, b"\0")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am no image", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-700], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50))[:2000], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "TIFF")[:-500], "."),
        (encoded(Image.effect_noise((64, 64), 50), "GIF")[:1000], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "WEBP")[:-500], "."),
        (b"\xff\xd8\xff", "."),
        (b"\x89PNG\r\n\x1a\n", "."),
        (b"GIF89a", "."),
        (bomb(), "900000000 pixels"),
    ],
)
def test_undecodable_data_names_image_and_reason(data: bytes, reason: str) -> None:
    with pytest.raises(NestKALAError, match=reason) as caught:
        decode_image(data, "cats/my\ncat.jpg")
    message = str(caught.value)
    assert r"'cats/my\ncat.jpg'" in message
    assert "\n" not in message
    assert "BytesIO" not in message


def test_large_but_acceptable_images_do_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (12, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decoded(data).shape == (10, 12, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(NestKALAError, match="120 pixels"):
        decoded(data)


def test_threads_leave_the_warning_filters_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (12, 10)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    before = list(warnings.filters)

    def decode_many() -> None:
        for _ in range(200):
            decoded(data)

    threads = [threading.Thread(target=decode_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
