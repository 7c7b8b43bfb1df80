"""Tokens of images: right, the same to the bit whatever they are computed with, and computed once."""

import dataclasses
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor

import nestkala.training.run
from nestkala.backbones import Backbone, load_backbone
from nestkala.data.digits import load_digits
from nestkala.settings.config import Config
from nestkala.tokens.cache import TokenCache, image_key
from nestkala.tokens.source import Images, TokenSource
from nestkala.utils.errors import NestKALAError


@dataclasses.dataclass
class Given:
    """Images in memory, as encoded files or decoded."""

    images: list[bytes | Image.Image]

    @property
    def names(self) -> list[str]:
        return [f"image-{number}" for number in range(len(self.images))]

    def read(self, index: int) -> bytes | Image.Image:
        return self.images[index]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NESTKALA_CACHE", str(tmp_path / "tokens"))
    return tmp_path / "tokens"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny", num_adapted=1)


@pytest.fixture(scope="module")
def images() -> Given:
    """Thirteen images of several shapes, as PNG files."""
    random = np.random.default_rng(0)
    files: list[bytes | Image.Image] = []
    for number in range(13):
        buffer = BytesIO()
        pixels = random.integers(0, 256, (20 + number, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return Given(files)


@pytest.fixture
def trunk_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the trunk, call by call."""
    calls: list[int] = []
    trunk = TokenSource.trunk

    def counted(self: TokenSource, batch: Tensor) -> Tensor:
        calls.append(len(batch))
        return trunk(self, batch)

    monkeypatch.setattr(TokenSource, "trunk", counted)
    return calls


def tokens(source: TokenSource, images: Images, indices: list[int]) -> Tensor:
    return torch.cat(list(source.batches(images, indices)))


def source(backbone: Backbone, batch_size: int = 4, workers: int = 0, cache: TokenCache | None = None) -> TokenSource:
    return TokenSource(backbone, "fp32", batch_size, workers, cache)


def bits(tokens: Tensor) -> list[list[int]]:
    return tokens.view(torch.int16).flatten(1).tolist()


def test_tokens_are_the_trunk_of_the_preprocessed_images(backbone: Backbone, images: Given) -> None:
    decoded = [Image.open(BytesIO(data)).convert("RGB") for data in images.images if isinstance(data, bytes)]
    with torch.no_grad():
        expected = backbone.tower.trunk(torch.stack([backbone.preprocess(image) for image in decoded]))
    found = tokens(source(backbone), images, list(range(13)))
    assert found.dtype == torch.float16
    assert found.shape == expected.shape == (13, 16, 256)
    torch.testing.assert_close(found, expected, rtol=2**-9, atol=2**-9)
    assert (expected[0] - expected[1]).abs().max() > 0.1


@pytest.mark.parametrize("indices", [list(range(13)), [12, 0, 5], [7], [3, 3, 1, 3], []])
def test_batches_come_in_the_order_asked_for(indices: list[int], backbone: Backbone, images: Given) -> None:
    every = tokens(source(backbone), images, list(range(13)))
    batches = list(source(backbone).batches(images, indices))
    assert [len(batch) for batch in batches] == [4] * (len(indices) // 4) + [len(indices) % 4] * bool(len(indices) % 4)
    assert bits(torch.cat([*batches, every[:0]])) == bits(every[indices])


def test_an_images_tokens_do_not_depend_on_its_company(backbone: Backbone, images: Given, cache_folder: Path) -> None:
    own = source(backbone, 6)
    alone = [bits(tokens(own, images, [index]))[0] for index in range(13)]
    cache = TokenCache(cache_folder, "kind", 1e9)
    orders = [list(np.random.default_rng(seed).permutation(13)[: 13 - seed]) for seed in range(5)]
    for order in orders:
        assert bits(tokens(own, images, order)) == [alone[index] for index in order]
        # Some of these images are in the cache, left there by the orders before, and some are not.
        assert bits(tokens(source(backbone, 6, cache=cache), images, order)) == [alone[index] for index in order]


def test_the_trunk_always_runs_on_as_many_images(
    backbone: Backbone, images: Given, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    trunk = backbone.tower.trunk

    def counted(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return trunk(batch)

    monkeypatch.setattr(backbone.tower, "trunk", counted)
    cache = TokenCache(cache_folder, "kind", 1e9)
    for indices in (list(range(6)), [7], list(range(13))):
        tokens(source(backbone, cache=cache), images, indices)
    assert sizes == [4] * 5


def test_large_batches_pass_the_trunk_in_parts_of_one_size(
    backbone: Backbone, images: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Tensor] = []
    trunk = backbone.tower.trunk

    def counted(batch: Tensor) -> Tensor:
        passes.append(batch)
        return trunk(batch)

    monkeypatch.setattr(backbone.tower, "trunk", counted)
    monkeypatch.setattr("nestkala.tokens.source.PIXELS_A_PASS", 5 * 32 * 32)
    found = tokens(source(backbone, batch_size=12), images, list(range(13)))
    assert [len(batch) for batch in passes] == 4 * [5]  # 12 images in three passes, and the last
    assert len(found) == 13
    prepared = torch.stack([backbone.prepare(image, "") for image in images.images])
    torch.testing.assert_close(found, trunk(prepared.float()), rtol=2**-9, atol=2**-9)


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_other_precisions_are_near(precision: str, backbone: Backbone, images: Given) -> None:
    expected = tokens(source(backbone), images, [0, 1, 2]).float()
    copy = load_backbone("tiny", num_adapted=1) if precision == "fp64" else backbone
    if precision == "fp64":
        copy.tower.double()
    found = tokens(TokenSource(copy, precision, 4, 0), images, [0, 1, 2])
    assert found.dtype == torch.float16
    error = (found.float() - expected).abs().max()
    assert 0 < error < expected.abs().max() * (0.03 if precision == "bf16" else 0.003)


def test_a_second_run_computes_nothing(
    backbone: Backbone, images: Given, cache_folder: Path, trunk_calls: list[int]
) -> None:
    first = tokens(source(backbone, cache=TokenCache(cache_folder, "kind", 1e9)), images, list(range(13)))
    assert sum(trunk_calls) == 13
    trunk_calls.clear()
    again = tokens(source(backbone, cache=TokenCache(cache_folder, "kind", 1e9)), images, list(range(13)))
    assert not trunk_calls
    assert bits(again) == bits(first)


def test_only_what_is_missing_is_computed_and_lands_in_its_place(
    backbone: Backbone, images: Given, cache_folder: Path, trunk_calls: list[int]
) -> None:
    expected = tokens(source(backbone), images, list(range(13)))
    cache = TokenCache(cache_folder, "kind", 1e9)
    tokens(source(backbone, cache=cache), images, [9, 2, 5, 11, 0])
    trunk_calls.clear()
    order = [11, 1, 2, 12, 9, 3, 0, 5, 4]
    assert bits(tokens(source(backbone, cache=cache), images, order)) == bits(expected[order])
    assert sum(trunk_calls) == 4


def test_what_the_cache_holds_is_what_is_given(backbone: Backbone, images: Given, cache_folder: Path) -> None:
    marked = torch.full((16, 256), 7.0).half()
    cache = TokenCache(cache_folder, "kind", 1e9)
    assert isinstance(images.images[5], bytes)
    cache.add(image_key(images.images[5]), marked)
    cache.flush()
    found = tokens(source(backbone, cache=cache), images, [4, 5, 6])
    assert torch.equal(found[1], marked)
    assert not (found[[0, 2]] == 7).all()


def test_a_cache_without_room_changes_nothing(
    backbone: Backbone, images: Given, cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = tokens(source(backbone), images, list(range(13)))
    cache = TokenCache(cache_folder, "kind", 1000)
    for _ in range(2):
        assert bits(tokens(source(backbone, cache=cache), images, list(range(13)))) == bits(expected)
    assert len(caplog.records) == 1
    assert not list(cache_folder.glob("*/*"))


def test_workers_make_no_difference(backbone: Backbone, images: Given, trunk_calls: list[int]) -> None:
    order = [12, 3, 7, 1, 0, 9, 2]
    assert bits(tokens(source(backbone, 2, workers=1), images, order)) == bits(
        tokens(source(backbone, 2, workers=0), images, order)
    )
    assert trunk_calls == 2 * [2, 2, 2, 1]


def test_decoded_images_are_converted_as_files_are(backbone: Backbone) -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    transparent = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    given: list[bytes | Image.Image] = [Image.fromarray(pixels) for pixels in (gray, gray.astype(np.uint16) * 257)]
    given.append(Image.fromarray(transparent))
    files: list[bytes | Image.Image] = []
    for image in given:
        assert isinstance(image, Image.Image)
        buffer = BytesIO()
        image.save(buffer, "PNG")
        files.append(buffer.getvalue())
    found = tokens(source(backbone), Given(given), [0, 1, 2])
    assert bits(found) == bits(tokens(source(backbone), Given(files), [0, 1, 2]))
    assert bits(found[:1]) == bits(found[1:2]) != bits(found[2:])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers: int, backbone: Backbone, images: Given) -> None:
    broken = Given([*images.images[:6], b"no image", *images.images[6:]])
    with pytest.raises(NestKALAError) as caught:
        tokens(source(backbone, 2, workers), broken, list(range(14)))
    assert str(caught.value).startswith("cannot decode image 'image-6': not an image in a supported format (JPEG,")


def test_tokens_that_half_precision_cannot_hold_are_refused(images: Given) -> None:
    backbone = load_backbone("tiny", num_adapted=1)
    backbone.tower.trunk_blocks[-1].mlp.fc2.bias.data[0] = 1e5
    with pytest.raises(NestKALAError, match="half precision"):
        tokens(source(backbone), images, [0])


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dataset = load_digits().take(np.arange(30))
    monkeypatch.setattr(nestkala.training.steps.images, "load_dataset", lambda *_: dataset)
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("few_digits")
def test_runs_share_tokens_only_where_they_are_the_same(
    tmp_path: Path, cache_folder: Path, trunk_calls: list[int]
) -> None:
    def computed(**settings: object) -> int:
        """Images that a training with these settings sends through the trunk."""
        AcceleratorState._reset_state()
        trunk_calls.clear()
        shared = {
            "adapter": "clora",
            "queries_per_class": 1,
            "epochs": 1,
            "encode_batch_size": 10,
            "workers": 0,
            "threads": 1,
        }
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        nestkala.training.run.train(Config(**shared | {"output": output} | settings))
        return sum(trunk_calls)

    each = 30 + 20  # images, and near copies of those in the gallery
    assert computed() == each
    assert computed() == 0
    assert computed(seed=1, shots=2, lengths=(5,), loss="dpsh", rank=2) == 0
    assert len(list(cache_folder.iterdir())) == 1
    for other in ({"precision": "bf16"}, {"adapter": "none"}, {"adapt_blocks": 2}):
        assert computed(**other) == each
    assert computed(adapt_blocks=2) == 0
    assert len(list(cache_folder.iterdir())) == 4
    assert computed(cache_gb=0) >= each


def test_a_fingerprint_is_of_weights_and_preprocessing() -> None:
    one, other = (load_backbone("tiny", num_adapted=blocks) for blocks in (1, 2))
    assert one.fingerprint == other.fingerprint
    changed = load_backbone("tiny", num_adapted=1)
    changed.tower.trunk_blocks[0].mlp.fc1.weight.data[0, 0] += 1e-3
    assert changed.fingerprint != one.fingerprint
    assert dataclasses.replace(one, preprocessing=one.preprocessing + " ").fingerprint != one.fingerprint
