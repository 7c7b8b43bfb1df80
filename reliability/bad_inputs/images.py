"""Image files."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from nestkala.cli import main
from nestkala.index import PrefixIndex

from ..pictures import chunk, encoded, noise, png
from .case import Case, accepted, refused
from .damage import PICKLE, Damage, replaced
from .good import SMALL, Good, Make, command, copied, on_copy, on_path, quietly

ODD_NAMES = {
    "newline": "two\nlines.png",
    "quotes": "'single' \"double\".png",
    "HTML": "<img src=x onerror=alert(1)>.png",
    "invalid UTF-8": os.fsdecode(b"gr\xfcn.png"),
    "escape sequence": "\x1b[31mred.png",
}


def _with_chunk(chunk: bytes) -> bytes:
    """A PNG file with one additional chunk after its header."""
    return _WHOLE["PNG"][:33] + chunk + _WHOLE["PNG"][33:]


def _with_segment(segment: bytes) -> bytes:
    """A JPEG file with one additional segment before its others."""
    return _WHOLE["JPEG"][:2] + segment + _WHOLE["JPEG"][2:]


_LONG_TEXT = b"a\0\0" + zlib.compress(bytes(1_200_000))
_WHOLE = {form: encoded(noise(0, 32), form) for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")}
_BROKEN = {
    "empty.jpg": b"",
    "text.png": b"hello\n" * 9,
    "pickle.jpg": PICKLE,
    "page.gif": b"<html></html>",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    **{f"cut.{form.lower()}": content[: len(content) * 2 // 3] for form, content in _WHOLE.items()},
    "bomb.png": png(30_000, 30_000, zlib.compress(b"\0" * 1000)),
    "no_pixels.png": png(0, 8, zlib.compress(b"")),
    "flipped.png": _WHOLE["PNG"][:60] + bytes([_WHOLE["PNG"][60] ^ 255]) + _WHOLE["PNG"][61:],
    "header_only.gif": b"GIF89a",
    "broken\nname.png": b"no image",
}


def _classified(name: str, write: Damage) -> Make:
    return on_path(name, write, "classify RUN PATH")


def _one_broken(command: str) -> Make:
    """The good images, one of them broken."""
    return on_copy("images", lambda folder: (folder / "a" / "0.png").write_bytes(b"no image"), command)


_TRAIN = f"train --data COPY --output OUT --queries 2 {SMALL}"


def _in_folder(write: Damage) -> Make:
    """A folder filled by `write`, to be indexed."""

    def fill(folder: Path) -> None:
        folder.mkdir()
        write(folder)

    return on_path("images", fill, "index PATH NEW --model RUN --json")


def _twins(name: str, odd: tuple[str, bytes], plain: Image.Image) -> Case:
    """An odd file that must have the code of a plain one."""

    def write(folder: Path) -> None:
        (folder / odd[0]).write_bytes(odd[1])
        plain.save(folder / "plain.png")

    def same_code(here: Path, _: Good, __: str) -> bool:
        index = PrefixIndex.load(here / "out.index")
        return set(index.ids) == {odd[0], "plain.png"} and bool((index.codes[0] == index.codes[1]).all())

    return accepted(name, _in_folder(write), same_code)


def _named(kind: str, name: str) -> Case:
    def one_item(here: Path, _: Good, printed: str) -> bool:
        return json.loads(printed)["added"] == [name] == list(PrefixIndex.load(here / "out.index").ids)

    return accepted(f"image name: {kind}", _in_folder(lambda f: noise(1).save(f / name)), one_item)


def _leaves_out(name: str, damage: Callable[[Path], object]) -> Case:
    """A folder with one image and something that is not an image."""

    def write(folder: Path) -> None:
        noise(1).save(folder / "1.png")
        damage(folder)

    def only_it(_: Path, __: Good, printed: str) -> bool:
        return json.loads(printed)["added"] == ["1.png"] and not json.loads(printed)["broken"]

    return accepted(name, _in_folder(write), only_it)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    return encoded(noise(3, 16), "PNG", exif=exif)


def _cmyk() -> tuple[bytes, Image.Image]:
    """A CMYK file, and its content by the formula (255 - ink) (255 - black) / 255, for inks of 0 or 255."""
    inks = np.random.default_rng(5).integers(0, 2, (16, 16, 4)).astype(np.float64) * 255
    shown = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    content = encoded(Image.fromarray(inks.astype(np.uint8), "CMYK"), "TIFF")
    return content, Image.fromarray(shown.astype(np.uint8))


def _16_bit() -> tuple[bytes, Image.Image]:
    gray = np.random.default_rng(6).integers(0, 256, (16, 16))
    content = encoded(Image.fromarray((gray * 257).astype(np.uint16)), "PNG")
    return content, Image.fromarray(gray.astype(np.uint8))


def _animated() -> tuple[bytes, Image.Image]:
    frames = [noise(seed, 16).quantize(16) for seed in (7, 8, 9)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), frames[0].convert("RGB")


def _transparent() -> tuple[bytes, Image.Image]:
    """An image that is half transparent, which shows as white."""
    pixels = np.asarray(noise(10, 16))
    opacity = np.full((16, 16, 1), 255, np.uint8)
    opacity[:8] = 0
    white = np.concatenate([np.full((8, 16, 3), 255, np.uint8), pixels[8:]])
    return encoded(Image.fromarray(np.concatenate([pixels, opacity], axis=2)), "PNG"), Image.fromarray(white)


def _negative() -> tuple[bytes, Image.Image]:
    """16-bit gray in which 0 is white."""
    gray = np.random.default_rng(11).integers(0, 256, (16, 16))
    content = encoded(Image.fromarray((65_535 - gray * 257).astype(np.uint16)), "TIFF")
    kind = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(kind) == 1
    return content.replace(kind, struct.pack("<HHIHH", 262, 3, 1, 0, 0)), Image.fromarray(gray.astype(np.uint8))


def _one_transparent_gray() -> tuple[bytes, Image.Image]:
    """16-bit gray with one transparent value, which shows as white."""
    gray = np.arange(256).reshape(16, 16)
    content = encoded(Image.fromarray((gray * 257).astype(np.uint16)), "PNG", transparency=9 * 257)
    gray[gray == 9] = 255
    return content, Image.fromarray(gray.astype(np.uint8))


def _long(width: int, height: int) -> tuple[bytes, Image.Image]:
    return encoded(Image.new("L", (width, height), 77), "PNG"), Image.new("L", (8, 8), 77)


def _other_formats(folder: Path) -> None:
    for name in ("a.jxl", "b.cr2", "c.mov"):
        (folder / name).write_bytes(b"x")


def _emptied(*flags: str) -> Make:
    """A folder whose images have disappeared since it was indexed, as when a disk is not mounted."""

    def make(here: Path, good: Good) -> list[str | Path]:
        folder = copied(good.images, here)
        update: list[str | Path] = ["index", folder, here / "out.index"]
        quietly(lambda: main([str(word) for word in (*update, "--model", good.run)]))
        for path in folder.glob("*/*.png"):
            path.unlink()
        return [*update, *flags, "--json"]

    return make


def _page_escapes(here: Path, _: Good, __: str) -> bool:
    page = (here / "out.html").read_text()
    return "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page


def _to_be_searched(here: Path, good: Good) -> list[str | Path]:
    name = ODD_NAMES["HTML"]
    codes = PrefixIndex.load(good.index)
    index = PrefixIndex.build(codes.codes[:1], [name], codes.bits, about=codes.about | {"folder": str(here)})
    index.save(here / "one.index")
    noise(1).save(here / name)
    return ["search", here / "one.index", here / name, "--html", here / "out.html"]


def _reports(key: str) -> Callable[[Path, Good, str], bool]:
    return lambda _, __, printed: json.loads(printed)[key] == ["a/0.png"]


CASES = [
    *(
        refused(f"image: {name!r}", _classified(name, replaced(content)), name.split("\n")[0])
        for name, content in _BROKEN.items()
    ),
    refused("image: missing file", command("classify RUN lost.png"), "lost.png"),
    refused("image: 300-character name", command(f"classify RUN {'x' * 300}.png"), "x" * 300),
    refused("image: link to itself", _classified("link.png", lambda path: path.symlink_to("link.png")), "link.png"),
    refused("image: dangling link", _classified("link.png", lambda path: path.symlink_to("nothing.png")), "link.png"),
    refused("search: broken image", _one_broken("search INDEX COPY/a/0.png"), "a/0.png"),
    refused("train: broken image", _one_broken(_TRAIN), "a/0.png"),
    accepted(
        "train: broken image, skipped",
        _one_broken(f"{_TRAIN} --on-broken skip"),
        lambda here, _, __: json.loads((here / "out/metrics.json").read_text())["broken_images"] == ["a/0.png"],
    ),
    accepted(
        "encode: broken image",
        _one_broken("encode COPY OUT --model RUN --json"),
        _reports("unreadable"),
    ),
    accepted("index: broken image", _one_broken("index COPY OUT --model RUN --json"), _reports("broken")),
    _twins("image: EXIF rotation", ("odd.png", _rotated()), noise(3, 16).transpose(Image.Transpose.ROTATE_270)),
    *(
        _twins(f"image: {kind}", (f"odd.{suffix}", content), plain)
        for kind, suffix, (content, plain) in (
            ("CMYK", "tif", _cmyk()),
            ("16-bit gray", "png", _16_bit()),
            ("animated", "gif", _animated()),
            ("transparent", "png", _transparent()),
            ("16-bit gray, white is zero", "tif", _negative()),
            ("16-bit gray with a transparent value", "png", _one_transparent_gray()),
            ("1,000,000 x 1 pixels", "png", _long(1_000_000, 1)),
            ("1 x 1,000,000 pixels", "png", _long(1, 1_000_000)),
            ("PNG with 1.2 MB of text", "png", (_with_chunk(chunk(b"zTXt", _LONG_TEXT)), noise(0, 32))),
            (
                "PNG text with wrong checksum",
                "png",
                (_with_chunk(chunk(b"zTXt", _LONG_TEXT)[:-4] + b"abcd"), noise(0, 32)),
            ),
            ("PNG with truncated gamma", "png", (_with_chunk(chunk(b"gAMA", b"")), noise(0, 32))),
            (
                "JPEG with truncated ICC profile",
                "jpg",
                (_with_segment(b"\xff\xe2\0\x0eICC_PROFILE\0"), Image.open(BytesIO(_WHOLE["JPEG"]))),
            ),
        )
    ),
    *(_named(kind, name) for kind, name in ODD_NAMES.items()),
    accepted("search: HTML in image name", _to_be_searched, _page_escapes),
    _leaves_out("index: link to parent folder", lambda folder: (folder / "loop").symlink_to("..")),
    _leaves_out("index: link to itself", lambda folder: (folder / "x.png").symlink_to("x.png")),
    _leaves_out("index: unsupported photo formats", _other_formats),
    _leaves_out("index: dangling link", lambda folder: (folder / "x.png").symlink_to("nothing")),
    refused("index: folder emptied since", _emptied(), "24 of 24 indexed images"),
    accepted(
        "index: folder emptied since, removal allowed",
        _emptied("--allow-removal"),
        lambda _, __, printed: len(json.loads(printed)["removed"]) == 24,
    ),
    refused("encode: empty folder", on_path("mount", Path.mkdir, "encode PATH OUT --model RUN"), "mount"),
    _leaves_out("index: pipe named like an image", lambda folder: os.mkfifo(folder / "x.png")),
    _leaves_out("index: device named like an image", lambda folder: (folder / "x.png").symlink_to("/dev/zero")),
]
