"""What may be given as an image: the same picture in every form is the same picture, and all else is told by number."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nestkala import Hasher
from nestkala.images.decoding import decode_image
from nestkala.images.given import GivenImages, chunks
from nestkala.utils.errors import NestKALAError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


def forms(folder: Path) -> dict[str, Any]:
    path = folder / "a.png"
    path.write_bytes(png())
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    return {
        **{"path": path, "str": str(path), "bytes": png(), "bytearray": bytearray(png())},
        **{"memoryview": memoryview(png()), "file": path.open("rb"), "buffer": io.BytesIO(png())},
        **{"pillow": Image.fromarray(PIXELS), "array": PIXELS, "view": np.asfortranarray(PIXELS)},
        **{"tensor": tensor, "floats": tensor.float() / 255, "halves": (tensor.double() / 255).requires_grad_()},
    }


def shown(given: GivenImages) -> list[np.ndarray]:
    return [np.asarray(decode_image(given.read(n), given.names[n])) for n in range(len(given))]


@pytest.mark.parametrize("several", [False, True])
def test_every_form_of_a_picture_is_that_picture(tmp_path: Path, several: bool) -> None:
    for image in forms(tmp_path).values():
        (given,) = chunks([image] if several else image, False, 4)
        (pixels,) = shown(given)
        assert (pixels == PIXELS).all()


def test_codes_of_every_form_are_equal(noise_model: Path, tmp_path: Path) -> None:
    hasher, every = Hasher.from_pretrained(noise_model, "cpu"), list(forms(tmp_path).values())
    codes = hasher.encode(every)
    assert codes.shape == (len(every), 3)
    assert (codes == codes[0]).all()
    for image in forms(tmp_path).values():
        assert (hasher.encode(image) == codes[:1]).all()
    stack = np.stack([PIXELS, 255 - PIXELS])
    both = hasher.encode([Image.fromarray(of) for of in stack])
    assert (hasher.encode(stack) == both).all()
    assert (hasher.encode(torch.from_numpy(stack).permute(0, 3, 1, 2)) == both).all()
    assert (hasher.relaxed(stack) == hasher.relaxed(list(stack))).all()


def test_an_iterator_is_read_a_few_batches_ahead_and_gives_the_codes_of_the_list(noise_model: Path) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    images = list(np.random.default_rng(1).integers(0, 256, (75, 6, 6, 3), dtype=np.uint8))
    taken = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal taken
        for taken, image in enumerate(images, 1):  # noqa: B007 - read outside
            yield image

    seen = []
    for given in chunks(stream(), False, 4):
        seen.append(len(given))
        assert taken <= sum(seen)
    assert max(seen) < 40
    assert sum(seen) == 75
    assert (hasher.encode(stream(), batch_size=4) == hasher.encode(images, batch_size=4)).all()
    assert np.array_equal(hasher.relaxed(stream(), batch_size=4), hasher.relaxed(images, batch_size=4))
    assert hasher.encode(iter([])).shape == hasher.encode([]).shape == (0, 3)
    assert hasher.relaxed(iter([])).shape == (0, 20)


def test_what_cannot_be_read_late_in_a_stream_is_told_by_its_number(noise_model: Path) -> None:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    good = Image.fromarray(PIXELS)
    assert hasher.encode(good).shape == (1, 3)
    for wrong, said in ((b"nothing", "'number 50'"), (None, "image number 50 is of type NoneType")):
        with pytest.raises(NestKALAError, match=said):
            hasher.encode((wrong if number == 50 else good for number in range(60)), batch_size=2)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 4), np.uint8), "an array uint8 (4, 4)"),
        (np.zeros((4, 4, 4), np.uint8), "an array uint8 (4, 4, 4)"),
        (np.zeros((4, 4, 3)), "an array float64 (4, 4, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "an array uint8 (0, 4, 3)"),
        (torch.zeros(4, 4, 3), "a tensor float32 (4, 4, 3)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "a tensor int64 (3, 4, 4)"),
        (torch.full((3, 4, 4), -0.5), "values from -0.5 to -0.5, not in [0, 1]"),
        (torch.full((3, 4, 4), float("nan")), "values from nan to nan"),
        (io.StringIO("text"), "open it in mode 'rb'"),
        ([PIXELS], "of type list"),
        (3, "of type int"),
        ("no\0file", "cannot read image"),
    ],
)
def test_what_is_no_image_is_told_with_what_is(image: Any, said: str) -> None:
    with pytest.raises(NestKALAError) as caught:
        list(map(shown, chunks([Image.fromarray(PIXELS), image], False, 4)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_alone_is_no_image() -> None:
    with pytest.raises(NestKALAError, match="images are of type int, not a path, "):
        list(chunks(3, False, 4))  # type: ignore[arg-type]


def test_features_of_any_form() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 6))
    for several in (rows, torch.from_numpy(rows), list(rows), list(torch.from_numpy(rows)), iter(rows)):
        (given,) = chunks(several, True, 4)
        found = np.stack([np.frombuffer(given.read(n), np.float32) for n in range(3)])
        assert (found == rows.astype(np.float32)).all()
    (given,) = chunks(torch.from_numpy(rows[0]), True, 4)
    assert len(given) == 1
    (given,) = chunks([rows], True, 4)
    with pytest.raises(NestKALAError, match=r"feature number 0 is an array float64 \(3, 6\)"):
        given.read(0)
