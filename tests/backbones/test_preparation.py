"""What comes before the trunk: the same as the library's own pipeline, at a cost in proportion to what it keeps."""

import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from nestkala.backbones import Backbone, load_backbone
from nestkala.images.decoding import decode_image
from nestkala.images.preparation import CentralSquare, Preparation
from nestkala.search.fitted import codes_of, model_without_names, set_shipped
from nestkala.utils.errors import NestKALAError

BACKBONES = ("tiny", "photo", "timm/resnet18:random", "timm/vit_tiny_patch16_224:random", "open_clip/ViT-S-32:random")
MODES = {
    "timm squash": timm.data.create_transform((3, 64, 64), crop_mode="squash"),
    "timm border": timm.data.create_transform((3, 64, 64), crop_mode="border"),
    "timm center, oblong": timm.data.create_transform((3, 64, 96), crop_mode="center"),
    "open_clip squash": image_transform_v2(PreprocessCfg(size=64, resize_mode="squash"), is_train=False),
    "open_clip longest": image_transform_v2(PreprocessCfg(size=64, resize_mode="longest"), is_train=False),
    "open_clip oblong": image_transform_v2(PreprocessCfg(size=(96, 64), resize_mode="shortest"), is_train=False),
}
"""Other ways to the size of a network, in pixels, that libraries have."""
WHOLE = ("timm border", "open_clip longest")
"""Those that fit the longer side."""


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, num_adapted=0)


def clouds(width: int, height: int) -> Image.Image:
    """Noise that changes slowly, so that a shift by a fraction of a pixel makes a small difference."""
    small = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (1600, 100), (100, 1600), (7, 5), (1, 1)])
def test_usual_shapes_are_prepared_to_the_bit_as_the_library_does(backbone: Backbone, size: tuple[int, int]) -> None:
    image = clouds(*size)
    assert torch.equal(backbone.prepare(png(image), "it"), backbone.preprocess(image))


@pytest.mark.parametrize("size", [(900, 21), (907, 21), (1001, 20), (21, 907), (20, 1000), (2000, 100), (401, 2)])
def test_long_shapes_are_prepared_as_the_library_does_but_for_rounding(
    backbone: Backbone, size: tuple[int, int]
) -> None:
    image = clouds(*size)
    ours, theirs = backbone.prepare(png(image), "it"), backbone.preprocess(image)
    assert ours.shape == theirs.shape
    shift = theirs.roll(1, dims=2 if size[0] > size[1] else 1)  # by a whole pixel
    assert (ours - theirs).abs().mean() < max((shift - theirs).abs().mean(), 0.01)


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pixels of every image that Pillow is asked to make by scaling."""
    pixels: list[int] = []
    resize: Callable[..., Image.Image] = Image.Image.resize

    def noted(self: Image.Image, size: tuple[int, int], *args: object, **options: object) -> Image.Image:
        pixels.append(size[0] * size[1])
        return resize(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    return pixels


LONG = [(1_000_000, 1), (1, 1_000_000), (2_000_000, 3)]


@pytest.mark.parametrize("size", LONG)
def test_the_longest_pictures_are_scaled_to_a_few_pixels(
    backbone: Backbone, size: tuple[int, int], scaled: list[int]
) -> None:
    given = np.zeros((size[1], size[0]), np.uint8)
    given[size[1] // 2 :, size[0] // 2 :] = 255
    prepared = backbone.prepare(png(Image.fromarray(given)), "it")
    assert scaled
    assert max(scaled) < 3_000_000
    halves = prepared.chunk(2, dim=2 if size[0] > size[1] else 1)
    assert halves[1].mean() > halves[0].mean()  # it is the middle that is kept


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [*LONG, (300, 200), (907, 31)])
def test_every_mode_stays_within_bounds_or_names_the_image(mode: str, size: tuple[int, int], scaled: list[int]) -> None:
    image = clouds(*size) if max(size) < 1000 else Image.new("RGB", size)
    prepare = partial(Preparation(MODES[mode]), png(image), "long.png")
    if size in LONG and mode in WHOLE:  # of whose shorter side not a pixel would be left
        with pytest.raises(NestKALAError, match=r"cannot scale image 'long.png' of \d+ x \d+ pixels: "):
            prepare()
    else:
        assert prepare().shape[1:] in ((64, 64), (64, 96), (96, 64))
    assert max(scaled, default=0) < 3_000_000
    if size == (300, 200):
        assert torch.equal(prepare(), MODES[mode](image))


def test_want_of_memory_is_told_in_a_line() -> None:
    def hungry(_: Image.Image) -> Tensor:
        raise MemoryError

    with pytest.raises(NestKALAError, match=r"cannot scale image 'big.png' of 5 x 4 pixels: MemoryError"):
        Preparation(hungry)(png(Image.new("L", (5, 4))), "big.png")


def test_own_features_are_taken_as_they_are() -> None:
    prepare = load_backbone("features:3", num_adapted=0).preparation
    row = np.array([1, 2, 3], np.float32)
    assert prepare(row.tobytes(), "row").tolist() == [1, 2, 3]
    with pytest.raises(NestKALAError, match="row has 2 numbers, but features:3 expects 3"):
        prepare(row[:2].tobytes(), "row")


SQUARE = CentralSquare(64, 56, 0.5, 0.5)
NEEDED = {
    "a central square": 64,
    **dict.fromkeys(["open_clip squash", "open_clip longest"], 64),
    "open_clip oblong": 96,
    **dict.fromkeys(["timm squash", "timm border"], 73),  # of which 7/8 are cut out
    "timm center, oblong": 109,
}
"""Pixels of the longer side of what each mode scales to."""


@pytest.mark.parametrize("mode", NEEDED)
def test_a_large_jpeg_is_decoded_at_the_least_scale_that_keeps_twice_what_is_needed(mode: str) -> None:
    preprocess, needed = ({"a central square": SQUARE} | MODES)[mode], NEEDED[mode]
    for shorter, kept in [(4 * needed - 1, 1), (4 * needed, 2), (8 * needed - 1, 2), (8 * needed, 4), (16 * needed, 8)]:
        buffer = BytesIO()
        clouds(shorter * 3 // 2, shorter).save(buffer, "JPEG")
        with Image.open(buffer) as image:
            image.draft(None, (image.width // kept, image.height // kept))
            expected = preprocess(image.convert("RGB"))
        assert torch.equal(Preparation(preprocess)(buffer.getvalue(), "it"), expected)


def test_images_smaller_than_needed_are_decoded_in_full_to_the_bit(caltech101: Path) -> None:
    preparation = load_backbone("photo", num_adapted=0).preparation
    for path in sorted(caltech101.glob("*/0001.jpg")):
        data = path.read_bytes()
        assert torch.equal(preparation(data, "it"), preparation.preprocess(decode_image(data, "it")))


@pytest.fixture(scope="module")
def phone_photographs(caltech101: Path) -> list[bytes]:
    """Real photographs enlarged to 12 megapixels, with noise as of a sensor."""
    found = []
    for number, path in enumerate(sorted(caltech101.glob("*/0007.jpg"))[::2]):
        with Image.open(path) as image:
            size = (4000, 3000) if image.width > image.height else (3000, 4000)
            pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.int16)
        noise = np.random.default_rng(number).integers(-8, 9, (*pixels.shape[:2], 1), dtype=np.int16)
        buffer = BytesIO()
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found


@pytest.mark.slow
def test_few_bits_change_where_a_phones_photographs_are_decoded_at_a_reduced_scale(
    phone_photographs: list[bytes],
) -> None:
    """Compared with decoding in full, in codes that were fitted to other photographs."""
    backbone = load_backbone("photo", num_adapted=0)
    _, model = model_without_names(backbone)
    set_shipped(model)

    @torch.no_grad()
    def codes(images: list[Tensor]) -> np.ndarray:
        return codes_of(model, backbone.tower.trunk(torch.stack(images)).float())

    in_full = codes([backbone.preprocess(decode_image(data, "it")) for data in phone_photographs])
    reduced = codes([backbone.prepare(data, "it") for data in phone_photographs])
    assert np.bitwise_count(in_full ^ reduced).sum() / (8 * in_full.size) < 0.01


def test_preprocessing_in_words_is_as_before() -> None:
    """Or models of earlier versions would be taken for those of another backbone."""
    words = json.loads(load_backbone("photo", num_adapted=0).preprocessing)
    assert words["input_size"] == [3, 224, 224]
    assert words["crop_mode"] == "center"
