"""The pass through the frozen trunk, shared among processes: each image is computed by one process for all."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from ..utils.errors import NestKALAError
from .source import Images, TokenSource

Part = tuple[NDArray[np.float16] | None, list[NestKALAError | None]]
"""The tokens (n, ...) of the images that could be decoded, if any, and the error for each of the others."""


class SharedTokenSource(TokenSource):
    """Returns the same tokens in the same batches to every process as one `TokenSource` alone, bit for bit.

    The processes take turns by batches: each one reads, hashes and computes every n-th batch, stores it in its cache,
    and sends it to the others. So each image is computed once, whether the processes share a cache, have one per
    machine, or none, and nobody waits longer than one batch takes. All processes must request the same images at the
    same time.

    Args:
        source: source of each process.
        accelerator: the processes.
    """

    def __init__(self, source: TokenSource, accelerator: Accelerator) -> None:
        super().__init__(
            source.backbone, source.precision, source.batch_size, source.workers, source.cache, source.given_trunk
        )
        self._accelerator = accelerator

    def rows(
        self, images: Images, indices: Sequence[int], progress: str | None = None
    ) -> Iterator[Tensor | NestKALAError]:
        """The tokens of each image at `indices`, in that order, or the error."""
        processes, number = self._accelerator.num_processes, self._accelerator.process_index
        if processes == 1:
            yield from super().rows(images, indices, progress)
            return
        batches = [indices[start : start + self.batch_size] for start in range(0, len(indices), self.batch_size)]
        own = batches[number::processes]
        computed = super().rows(images, [index for batch in own for index in batch], progress)
        for turn in range(-(-len(batches) // processes)):
            batch = own[turn] if turn < len(own) else ()
            for part in gather_object([_packed(list(islice(computed, len(batch))))]):
                yield from _unpacked(part)
        for _ in computed:  # nothing is left, but this writes the computed tokens to disk
            pass
        self._accelerator.wait_for_everyone()
        if self.cache is not None:
            self.cache.refresh()


def _packed(rows: list[Tensor | NestKALAError]) -> Part:
    tokens = [row.numpy() for row in rows if isinstance(row, Tensor)]
    return np.stack(tokens) if tokens else None, [row if isinstance(row, NestKALAError) else None for row in rows]


def _unpacked(part: Part) -> Iterator[Tensor | NestKALAError]:
    tokens, errors = part
    rows = iter(()) if tokens is None else iter(torch.from_numpy(tokens))
    return (next(rows) if error is None else error for error in errors)
