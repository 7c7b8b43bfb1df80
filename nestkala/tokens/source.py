"""Passes images through the frozen trunk, each one once, and then reads them from the cache."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm

from ..backbones import Backbone
from ..utils.errors import NestKALAError
from .cache import TokenCache, image_key
from .ordered import in_order

TRUNK_PRECISION = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
"""The dtype that each precision setting computes the trunk in; bf16 and fp16 use autocast."""

PIXELS_A_PASS = 8 * 224 * 224
"""The most pixels that a CPU puts through the trunk at once: 8 photographs for most networks.

Activations of more do not fit its cache: on two cores, EfficientNet-Lite0 takes 1.3 times as long in passes of 16, and
1.7 times in passes of 32. Vision transformers gain 5 % from 16.
"""

_PATIENCE = 1.0
"""Seconds before a progress bar appears for work that is usually instant."""


class Images(Protocol):
    """A collection of images, such as an `ImageDataset`."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image in errors."""

    def read(self, index: int) -> bytes | Image:
        """The bytes of an image file, or a decoded image (which cannot be cached)."""


@runtime_checkable
class Recognized(Images, Protocol):
    """Images that the cache can identify without reading them."""

    def content(self, index: int) -> Path | bytes:
        """A file or bytes that distinguish an image from others with different pixels."""


class TokenSource:
    """Returns the tokens of images in batches, from the cache if they are there.

    The trunk always runs on batches of one size, padding the last, so that an image's tokens do not depend on the other
    images in its batch, and a run with a cache equals one without.

    Args:
        backbone: backbone on the device to compute on.
        precision: "fp32", "bf16", "fp16" or "fp64".
        batch_size: images per batch; the trunk computes as many at once, or fewer on a CPU (`PIXELS_A_PASS`).
        workers: number of decoding threads; 0 decodes in the calling thread.
        cache: None to keep nothing.
        trunk: function to use in place of the tower's `trunk`.
    """

    def __init__(
        self,
        backbone: Backbone,
        precision: str,
        batch_size: int,
        workers: int,
        cache: TokenCache | None = None,
        trunk: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.backbone, self.cache, self.given_trunk = backbone, cache, trunk
        self.batch_size, self.workers = batch_size, workers
        self.precision, self.dtype = precision, TRUNK_PRECISION[precision]

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return self.backbone.tower.device

    def autocast(self) -> torch.autocast:
        """The mixed-precision context for trunk and tail; it does nothing at fp32 and fp64."""
        mixed = self.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, self.dtype if mixed else None, enabled=mixed)

    def batches(
        self, images: Images, indices: Sequence[int], progress: str | None = None, broken: list[int] | None = None
    ) -> Iterator[Tensor]:
        """The tokens of the images at `indices`, in that order, a batch at a time, on the CPU in half precision.

        Args:
            images: the collection to read from.
            indices: indices of the images.
            progress: label of the progress bar; None for no bar.
            broken: images that cannot be decoded are skipped and their indices appended to this list; None stops at
                the first.

        Raises:
            NestKALAError: if an image cannot be decoded; names it.
        """
        rows: list[Tensor] = []
        with tqdm(total=len(indices), desc=progress, unit="img", disable=progress is None) as bar:
            for index, row in zip(indices, self.rows(images, indices, progress), strict=True):
                if isinstance(row, Tensor):
                    rows.append(row)
                elif broken is None:
                    raise row
                else:
                    broken.append(index)
                    bar.update()
                if len(rows) == self.batch_size:
                    yield torch.stack(rows)
                    bar.update(len(rows))
                    rows = []
            if rows:
                yield torch.stack(rows)
                bar.update(len(rows))

    def rows(
        self, images: Images, indices: Sequence[int], progress: str | None = None
    ) -> Iterator[Tensor | NestKALAError]:
        """The tokens of each image at `indices`, in that order, or the error; `batches` stacks them."""
        cache = self.cache
        keys = [b""] * len(indices) if cache is None else self._keys(images, indices, cache, progress)
        kept = [cache is not None and key in cache for key in keys]
        computed = self._compute(images, [index for index, is_kept in zip(indices, kept, strict=True) if not is_kept])
        for key, is_kept in zip(keys, kept, strict=True):
            if is_kept:
                assert cache is not None
                yield cache[key]
                continue
            row = next(computed)
            if cache is not None and key and isinstance(row, Tensor):
                cache.add(key, row)
            yield row
        if cache is not None:
            cache.flush()

    def _keys(self, images: Images, indices: Sequence[int], cache: TokenCache, progress: str | None) -> list[bytes]:
        """The cache key of each image; none for an image that cannot be read, which is reported in its turn."""

        def key(index: int) -> bytes:
            try:
                content = images.content(index) if isinstance(images, Recognized) else images.read(index)
                if isinstance(content, Path):
                    return cache.digests.of(content)
                return image_key(content)  # type: ignore[arg-type]
            except (NestKALAError, OSError):
                return b""

        label = None if progress is None else f"{progress}: looking up"
        with ThreadPool() as pool:
            found = pool.imap(key, indices, chunksize=64)
            keys = list(tqdm(found, label, total=len(indices), unit="img", disable=label is None, delay=_PATIENCE))
        cache.digests.save()
        return keys

    def _compute(self, images: Images, indices: Sequence[int]) -> Iterator[Tensor | NestKALAError]:
        """The tokens of each image, or the error."""
        prepare = self.backbone.preparation

        def prepared(index: int) -> Tensor | NestKALAError:
            try:
                return prepare(images.read(index), images.names[index])
            except NestKALAError as error:  # returned, not raised, because earlier images come first
                return error

        waiting = in_order(prepared, indices, self.workers, 2 * self.batch_size)
        while batch := list(islice(waiting, self.batch_size)):
            intact = [image for image in batch if isinstance(image, Tensor)]
            rows = iter(self.trunk(torch.stack(intact)) if intact else ())
            yield from (next(rows) if isinstance(image, Tensor) else image for image in batch)

    @torch.no_grad()
    def trunk(self, batch: Tensor) -> Tensor:
        """Stacked outputs of `Backbone.prepare` (n, ...), n at most the batch size -> their tokens on the CPU."""
        size = self._images_a_pass(batch)
        filling = batch[-1:].expand(-len(batch) % size, *batch.shape[1:])
        passes = torch.cat([batch, filling]).split(size)
        return torch.cat([self._pass(images) for images in passes])[: len(batch)]

    def _images_a_pass(self, batch: Tensor) -> int:
        if self.device.type != "cpu" or batch.ndim < 4:  # own features have no pixels
            return self.batch_size
        return min(self.batch_size, max(1, PIXELS_A_PASS // (batch.shape[-2] * batch.shape[-1])))

    def _pass(self, images: Tensor) -> Tensor:
        images = images.to(self.device, torch.float64 if self.dtype == torch.float64 else torch.float32)
        with self.autocast():
            return (self.given_trunk or self.backbone.tower.trunk)(images).cpu()
