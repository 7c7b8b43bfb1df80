"""Images through the frozen trunk, each computed once and then read from the cache."""

from collections.abc import Iterator, Sequence
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
"""What each setting of precision computes the trunk in; bf16 and fp16 by autocast."""

PIXELS_A_PASS = 16 * 224 * 224
"""At most so many pixels go through the trunk at once on a processor: 16 photographs, for most networks. Activations of
more do not stay in its cache: EfficientNet-Lite0 takes 1.6 times longer in passes of 128, and five times the memory.
Transformers are as fast in passes of 16 as of 32."""

_PATIENCE = 1.0
"""Seconds before a bar is shown of what is done in a moment as a rule."""


class Images(Protocol):
    """A collection of images, such as an `ImageDataset`."""

    @property
    def names(self) -> Sequence[str]:
        """What to call each image in errors."""

    def read(self, index: int) -> bytes | Image:
        """The bytes of an image file, or an image that is decoded already (which no cache can keep)."""


@runtime_checkable
class Recognized(Images, Protocol):
    """Images that can be told apart for the cache without being made."""

    def content(self, index: int) -> Path | bytes:
        """What tells one image from others of other pixels: its file, or bytes."""


class TokenSource:
    """Gives the tokens of images, in batches, from the cache where they are there.

    The trunk always runs on batches of one size, the last one filled up, so that an image's tokens do not
    depend on which images it is computed with, and a run with a cache equals one without.

    Args:
        backbone: on the device that is to compute.
        precision: "fp32", "bf16", "fp16" or "fp64".
        batch_size: images in a batch; a pass of the trunk takes as many, or fewer on a processor (`PIXELS_A_PASS`).
        workers: threads that decode; 0 decodes in the calling one.
        cache: None keeps nothing.
    """

    def __init__(
        self,
        backbone: Backbone,
        precision: str,
        batch_size: int,
        workers: int,
        cache: TokenCache | None = None,
    ) -> None:
        self.backbone, self.cache = backbone, cache
        self.batch_size, self.workers = batch_size, workers
        self.precision, self.dtype = precision, TRUNK_PRECISION[precision]

    @property
    def device(self) -> torch.device:
        """Where the backbone computes."""
        return self.backbone.tower.device

    def autocast(self) -> torch.autocast:
        """The context of mixed precision, for trunk and tail; it changes nothing at fp32 and fp64."""
        mixed = self.dtype in (torch.bfloat16, torch.float16)
        return torch.autocast(self.device.type, self.dtype if mixed else None, enabled=mixed)

    def batches(
        self, images: Images, indices: Sequence[int], progress: str | None = None, broken: list[int] | None = None
    ) -> Iterator[Tensor]:
        """The tokens of the images named, in that order, a batch at a time, on the CPU in half precision.

        Args:
            images: where to read them.
            indices: which.
            progress: what to call it on a progress bar; None shows none.
            broken: those that cannot be decoded are left out and added to this list; None stops at the first.

        Raises:
            NestKALAError: names an image that cannot be decoded.
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
        """The tokens of each image named, in that order, or why there are none; `batches` puts them together."""
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
        """The key of each image in the cache; of one that cannot be read none, which is told in its turn."""

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
        """The tokens of each image, or why there are none."""
        prepare = self.backbone.preparation

        def prepared(index: int) -> Tensor | NestKALAError:
            try:
                return prepare(images.read(index), images.names[index])
            except NestKALAError as error:  # given, not raised: those before it come first
                return error

        waiting = in_order(prepared, indices, self.workers, 2 * self.batch_size)
        while batch := list(islice(waiting, self.batch_size)):
            intact = [image for image in batch if isinstance(image, Tensor)]
            rows = iter(self.trunk(torch.stack(intact)) if intact else ())
            yield from (next(rows) if isinstance(image, Tensor) else image for image in batch)

    @torch.no_grad()
    def trunk(self, batch: Tensor) -> Tensor:
        """What `Backbone.prepare` gave, stacked (n, ...), n at most the batch size -> its tokens on the CPU."""
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
            return self.backbone.tower.trunk(images).cpu()
