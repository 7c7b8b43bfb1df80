import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from nestkala.images.decoding import FORMATS, decode_image, image_size, looks_like_image
from nestkala.utils.errors import NestKALAError


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_image(data, "an image")
    assert image.mode == "RGB"
    return np.asarray(image)


def png(width: int, height: int, depth: int, color: int, rows: bytes, chunks: bytes = b"") -> bytes:
    """A PNG written from its specification, without Pillow."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
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


def test_gray_becomes_equal_channels() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert (decoded(encoded(Image.fromarray(gray))) == gray[:, :, None]).all()


def test_rgb_is_kept() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    for form in ("PNG", "BMP", "PPM", "TIFF"):
        assert (decoded(encoded(Image.fromarray(pixels), form)) == pixels).all()


def test_one_bit() -> None:
    assert decoded(encoded(Image.fromarray(np.array([[True, False]])))).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_gray_tiff_is_scaled_not_clipped(byte_order: str) -> None:
    values = np.array([0, 128, 257, 257 * 77, 40000, 65535])
    pixels = values.astype(byte_order + "u2").tobytes()
    mode = "I;16" if byte_order == "<" else "I;16B"
    data = encoded(Image.frombytes(mode, (6, 1), pixels), "TIFF")
    assert decoded(data)[0, :, 0].tolist() == [0, 0, 1, 77, 156, 255]


def test_16_bit_gray_png() -> None:
    rows = b"\0" + struct.pack(">4H", 0, 1000, 257 * 200, 65535)
    assert decoded(png(4, 1, 16, 0, rows))[0, :, 1].tolist() == [0, 4, 200, 255]


def test_16_bit_pgm() -> None:
    data = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 9, 65535)
    assert decoded(data)[0, :, 2].tolist() == [0, 9, 255]


def test_16_bit_rgb_png() -> None:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 257 * 128, 257, 257 * 2, 257 * 3)
    assert decoded(png(2, 1, 16, 2, rows)).tolist() == [[[255, 0, 128], [1, 2, 3]]]


def test_32_bit_gray_is_stretched_from_its_own_range() -> None:
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
def test_floating_point_gray(values: list[float], expected: list[int]) -> None:
    data = encoded(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert decoded(data)[0, :, 0].tolist() == expected


def test_cmyk() -> None:
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    colors = [[255, 255, 255], [0, 255, 255], [255, 0, 0], [0, 0, 0]]
    tiff = encoded(Image.fromarray(inks, "CMYK"), "TIFF")
    assert decoded(tiff)[0].tolist() == colors
    blocks = np.repeat(np.repeat(inks, 8, axis=0), 8, axis=1)
    jpeg = encoded(Image.fromarray(blocks, "CMYK"), "JPEG", quality=100)
    assert np.abs(decoded(jpeg)[4, 4::8].astype(int) - colors).max() <= 4


def test_alpha_is_composited_on_white() -> None:
    pixels = np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [200, 100, 0, 255], [255, 0, 0, 127]]], dtype=np.uint8)
    exact = [[255] * 3, [204] * 3, [200, 100, 0], [255, 128, 128]]
    assert np.abs(decoded(encoded(Image.fromarray(pixels)))[0].astype(int) - exact).max() <= 1


def test_gray_with_alpha() -> None:
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


def test_transparent_color() -> None:
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


# Metadata that a file can do without


def shown(decode: Callable[..., torch.Tensor], data: bytes) -> np.ndarray:
    """What libpng or libjpeg make of it, by which torchvision decodes."""
    with warnings.catch_warnings(action="ignore"):  # it means to leave this to another package
        return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB).permute(1, 2, 0).numpy()


PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
WRONG = b"\0\0\0\5"


def misspelt(kind: bytes, data: bytes) -> bytes:
    """A chunk with a wrong checksum."""
    return chunk(kind, data)[:-4] + WRONG


LONG_TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_200_000)))
SOUND = {
    b"tEXt": b"a\0b",
    b"gAMA": b"\0\0\xb1\x8f",
    b"PLTE": b"abc",
    b"tRNS": bytes(6),
    b"eXIf": b"II*\0",
    b"abCd": b"x",
}
SHORT = ("gAMA", "pHYs", "cHRM", "sRGB", "tIME", "eXIf", "tRNS", "acTL", "iCCP")
ODD_PNG = {
    "a long text": LONG_TEXT,
    "many texts": 80 * chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))),
    **{f"a wrong checksum in {kind.decode()}": misspelt(kind, data) for kind, data in SOUND.items()},
    **{f"a short {kind}": chunk(kind.encode(), b"") for kind in SHORT},
    "a short fcTL": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", b"a"),
    "a profile that is none": chunk(b"iCCP", b"a\0\0abc"),
}


@pytest.mark.parametrize("odd", ODD_PNG)
def test_png_with_odd_metadata_shows_what_libpng_shows(odd: str) -> None:
    data = png(5, 6, 8, 2, ROWS, ODD_PNG[odd])
    assert (decoded(data) == shown(decode_png, data)).all()
    assert (decoded(data) == PIXELS).all()
    assert image_size(data) == (5, 6)


def test_a_long_text_behind_the_pixels_is_left_aside() -> None:
    whole = png(5, 6, 8, 2, ROWS)
    assert (decoded(whole[:-12] + LONG_TEXT + whole[-12:]) == PIXELS).all()


def test_what_shows_stays_where_metadata_is_odd() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = chunk(b"eXIf", exif.tobytes()[6:])
    assert (decoded(png(5, 6, 8, 2, ROWS, LONG_TEXT + turned)) == np.rot90(PIXELS, -1)).all()
    color = chunk(b"tRNS", struct.pack(">3H", *PIXELS[2, 3].tolist()))
    expected = PIXELS.copy()
    expected[2, 3] = 255
    assert (decoded(png(5, 6, 8, 2, ROWS, LONG_TEXT + color)) == expected).all()
    palette = PALETTE + chunk(b"tRNS", bytes([0]))
    assert decoded(png(2, 1, 8, 3, b"\0\0\1", LONG_TEXT + palette))[0].tolist() == [[255] * 3, [0, 0, 255]]


@pytest.mark.parametrize(
    "data",
    [
        png(5, 6, 8, 2, ROWS[:30], LONG_TEXT),
        png(2, 1, 8, 3, b"\0\0\1", misspelt(b"PLTE", bytes(6))),
        png(5, 6, 8, 2, ROWS, LONG_TEXT)[:-40],
        png(30_000, 30_000, 8, 2, b"\0", LONG_TEXT),
    ],
    ids=["too few pixels", "a palette's wrong checksum", "truncated", "a bomb"],
)
def test_broken_pixels_stay_broken_beside_odd_metadata(data: bytes) -> None:
    with pytest.raises(NestKALAError, match="cannot decode image"):
        decode_image(data, "it")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive"])
def test_a_reduced_jpeg_shows_what_the_whole_one_does(orientation: int, kind: str) -> None:
    stored = np.kron(np.arange(0, 240, 40).reshape(2, 3), np.ones((160, 160), dtype=int))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(stored.astype(np.uint8)).convert("RGB" if kind == "progressive" else kind)
    data = encoded(picture, "JPEG", quality=95, exif=exif, progressive=kind == "progressive")
    whole, reduced = decode_image(data, "it"), decode_image(data, "it", 40)
    assert (reduced.width, reduced.height) == (whole.width // 4, whole.height // 4)  # 80 pixels are twice 40
    assert np.abs(np.asarray(reduced, int) - np.asarray(whole.reduce(4), int)).mean() < 1
    assert np.abs(np.asarray(reduced, int)[:, :, 0] - UPRIGHT[orientation](stored)[::4, ::4]).mean() < 2


def test_what_is_needed_in_full_is_decoded_in_full() -> None:
    picture = Image.effect_noise((320, 480), 50)
    jpeg, lossless = encoded(picture, "JPEG"), encoded(picture)
    assert decode_image(jpeg, "it", 81).tobytes() == decode_image(jpeg, "it").tobytes()
    assert decode_image(jpeg, "it", 80).size == (160, 240)
    assert decode_image(lossless, "it", 10).tobytes() == decode_image(lossless, "it").tobytes()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_a_reduced_scale_too(progressive: bool) -> None:
    data = encoded(Image.effect_noise((640, 640), 50), "JPEG", progressive=progressive)
    for length in (len(data) // 2, len(data) - 700):
        with pytest.raises(NestKALAError, match="truncated"):
            decode_image(data[:length], "it", 16)


def test_pixels_are_counted_before_a_jpeg_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (640, 640)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 640 * 640 // 2 - 1)
    with pytest.raises(NestKALAError, match="409600 pixels"):
        decode_image(data, "it", 16)


def test_a_reduced_jpeg_may_have_odd_metadata() -> None:
    data = encoded(Image.effect_noise((640, 640), 50), "JPEG")
    odd = data[:2] + segment(0xE2, b"ICC_PROFILE\0") + data[2:]
    assert decode_image(odd, "it", 40).tobytes() == decode_image(data, "it", 40).tobytes()


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2 if length is None else length) + content


GRAYS = np.kron(np.arange(0, 240, 40).reshape(2, 3), np.ones((8, 8), dtype=int)).astype(np.uint8)
JPEG = encoded(Image.fromarray(GRAYS).convert("RGB"), "JPEG", quality=100)
assert JPEG[2:6] == b"\xff\xe0\0\x10"
ODD_JPEG = {
    "a short JFIF": (segment(0xE0, b"JFIF\0"), JPEG[20:]),
    "a shorter JFIF": (segment(0xE0, b"JFIF"), JPEG[20:]),
    "a short Adobe": (segment(0xEE, b"Adobe"), JPEG[2:]),
    "a short profile": (segment(0xE2, b"ICC_PROFILE\0"), JPEG[2:]),
    "a short Photoshop": (segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"), JPEG[2:]),
    "a short EXIF": (segment(0xE1, b"Exif\0\0"), JPEG[2:]),
    "a comment of no length": (segment(0xFE, b"", 0) + segment(0xEE, b"Adobe"), JPEG[2:]),
    "a segment of length 1": (segment(0xE5, b"", 1) + segment(0xEE, b"Adobe"), JPEG[2:]),
    "a marker without a segment": (b"\xff\x01", JPEG[2:]),
    "bytes between segments": (segment(0xEE, b"Adobe") + b"\xff\0abcd\xff\xff", JPEG[2:]),
}


@pytest.mark.parametrize("odd", ODD_JPEG)
def test_jpeg_with_odd_metadata_shows_what_libjpeg_shows(odd: str) -> None:
    data = b"\xff\xd8" + b"".join(ODD_JPEG[odd])
    assert np.abs(decoded(data).astype(int) - shown(decode_jpeg, data)).max() <= 1
    assert np.abs(decoded(data).astype(int) - GRAYS[:, :, None]).max() <= 1
    assert image_size(data) == (24, 16)


def test_a_jpeg_keeps_its_orientation_and_colors_beside_odd_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = encoded(Image.fromarray(GRAYS).convert("RGB"), "JPEG", quality=100, exif=exif)
    found = decoded(turned[:2] + segment(0xE2, b"ICC_PROFILE\0") + turned[2:])
    assert np.abs(found.astype(int) - np.rot90(GRAYS)[:, :, None]).max() <= 1
    inks = np.broadcast_to(np.array([255, 0, 0, 0], np.uint8), (8, 8, 4))
    cyan = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    found = decoded(cyan[:2] + segment(0xE2, b"ICC_PROFILE\0") + cyan[2:])
    assert np.abs(found.astype(int) - [0, 255, 255]).max() <= 4


def test_ycck() -> None:
    """Adobe's transform 2: luminance and color of the inverted inks. Of gray, the ink is 255 less the luminance."""
    stored = np.broadcast_to(np.array([200, 128, 128, 255], np.uint8), (8, 8, 4))  # Y, Cb, Cr and no black, inverted
    data = bytearray(encoded(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100))
    place = data.index(b"Adobe")
    assert data[place + 11] == 0
    data[place + 11] = 2
    assert np.abs(decoded(bytes(data)).astype(int) - 55).max() <= 2


# Values that Pillow passes over


def tiff(pixels: np.ndarray, photometric: int, bits: int, kind: int = 1, data: bytes | None = None) -> bytes:
    """A little-endian, uncompressed TIFF written from its specification, without Pillow."""
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() if data is None else data
    count = 10
    after = 8 + 2 + 12 * count + 4
    depths = struct.pack(f"<{samples}H", *[bits] * samples)
    long_depths = struct.pack("<I", after) if samples > 2 else depths.ljust(4, b"\0")
    tags = [
        (256, 3, 1, struct.pack("<HH", pixels.shape[1], 0)),
        (257, 3, 1, struct.pack("<HH", pixels.shape[0], 0)),
        (258, 3, samples, long_depths),
        (259, 3, 1, struct.pack("<HH", 1, 0)),
        (262, 3, 1, struct.pack("<HH", photometric, 0)),
        (273, 4, 1, struct.pack("<I", after + len(depths))),
        (277, 3, 1, struct.pack("<HH", samples, 0)),
        (278, 3, 1, struct.pack("<HH", pixels.shape[0], 0)),
        (279, 4, 1, struct.pack("<I", len(data))),
        (339, 3, 1, struct.pack("<HH", kind, 0)),
    ]
    entries = b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entries + bytes(4) + depths + data


@pytest.mark.parametrize(("photometric", "expected"), [(1, [0, 9, 255]), (0, [255, 246, 0])])
def test_white_may_be_zero(photometric: int, expected: list[int]) -> None:
    gray = np.array([[0, 9, 255]])
    assert decoded(tiff(gray.astype(np.uint8), photometric, 8))[0, :, 0].tolist() == expected
    assert decoded(tiff((gray * 257).astype(np.uint16), photometric, 16))[0, :, 0].tolist() == expected
    assert decoded(tiff(gray.astype(np.float32), photometric, 32, kind=3))[0, :, 0].tolist() == expected
    with Image.open(BytesIO(tiff((gray * 257).astype(np.uint16), photometric, 16))) as opened:
        assert np.asarray(decode_image(opened, "it"))[0, :, 0].tolist() == expected


def test_12_bits_reach_white() -> None:
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x80, 0x00])  # 0, 4095, 2056, 0, from the high bits on
    found = decoded(tiff(np.zeros((1, 4), np.uint16), 1, 12, data=packed))
    assert found[0, :, 0].tolist() == [0, 255, 128, 0]


def test_lab_shows_its_colors() -> None:
    """CIE L*a*b*, a and b signed: grays have none, and red of sRGB is (54, 81, 70) under D50."""
    lab = np.array([[[0, 0, 0], [128, 0, 0], [255, 0, 0], [138, 81, 70]]], np.uint8)
    found = decoded(tiff(lab, 8, 8)).astype(int)[0]
    assert np.abs(found[:3] - [[0] * 3, [119] * 3, [255] * 3]).max() <= 2
    assert np.abs(found[3] - [255, 0, 0]).max() <= 8


@pytest.mark.parametrize(
    ("depth", "color", "row", "key", "expected"),
    [
        (16, 0, struct.pack(">2H", 300, 30000), struct.pack(">H", 300), [255, 117]),
        (16, 0, struct.pack(">2H", 300, 301), struct.pack(">H", 301), [1, 255]),
        (8, 0, bytes([7, 8]), struct.pack(">H", 7), [255, 8]),
        (4, 0, bytes([0x5A]), struct.pack(">H", 5), [255, 170]),
        (2, 0, bytes([0b01100000]), struct.pack(">H", 2), [85, 255]),
        (1, 0, bytes([0b01000000]), struct.pack(">H", 0), [255, 255]),
        (16, 2, struct.pack(">6H", *[300] * 3, *[30000] * 3), struct.pack(">3H", *[300] * 3), [255, 117]),
        (16, 2, struct.pack(">6H", *[257] * 3, *[30000] * 3), struct.pack(">3H", *[1] * 3), [1, 117]),
    ],
)
def test_one_transparent_value_at_every_depth(
    depth: int, color: int, row: bytes, key: bytes, expected: list[int]
) -> None:
    data = png(2, 1, depth, color, b"\0" + row, chunk(b"tRNS", key))
    assert decoded(data)[0, :, 0].tolist() == expected
    with Image.open(BytesIO(data)) as opened:
        assert np.asarray(decode_image(opened, "it"))[0, :, 0].tolist() == expected


def test_16_bits_with_alpha() -> None:
    gray = png(2, 1, 16, 4, b"\0" + struct.pack(">4H", 300, 0, 30000, 65535))
    assert decoded(gray)[0, :, 0].tolist() == [255, 117]
    colors = png(2, 1, 16, 6, b"\0" + struct.pack(">8H", 1, 2, 3, 0, 257 * 9, 0, 65535, 65535))
    assert decoded(colors)[0].tolist() == [[255] * 3, [9, 0, 255]]


def test_values_are_scaled_alike_in_however_many_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
    values[3, 3] = np.nan
    whole = decoded(encoded(Image.fromarray(values), "TIFF"))
    monkeypatch.setattr("nestkala.images.decoding._BAND", 7)
    assert (decoded(encoded(Image.fromarray(values), "TIFF")) == whole).all()
    low, high = np.nanmin(values), np.nanmax(values)
    exact = (np.nan_to_num(values, nan=low).astype(float) - low) / (float(high) - low) * 255
    assert np.abs(whole[:, :, 0] - exact).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["WEBP", "AVIF", "HEIF"])
def test_orientation_in_other_formats(orientation: int, form: str) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif")
    elif not features.check(form.lower()):
        pytest.skip(f"Pillow is built without {form}")
    stored = np.kron(np.arange(0, 240, 40).reshape(2, 3), np.ones((32, 32), dtype=int))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored.astype(np.uint8)).convert("RGB"), form, quality=95, exif=exif.tobytes())
    upright = UPRIGHT[orientation](stored)
    assert np.abs(decoded(data).astype(int) - upright[:, :, None]).mean() < 4


def test_heic_is_read_where_its_reader_is_installed() -> None:
    assert looks_like_image(Path("a.HEIC")) == ("HEIF" in FORMATS)
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    blocks = Image.fromarray(np.kron(PIXELS, np.ones((16, 16, 1), np.uint8)))
    pillow_heif.from_pillow(blocks).save(buffer, quality=-1)
    assert np.abs(decoded(buffer.getvalue()).astype(int) - np.asarray(blocks)).mean() < 6
    with pytest.raises(NestKALAError, match="'it'"):
        decode_image(buffer.getvalue()[:-200], "it")
