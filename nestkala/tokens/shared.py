"""The pass through the frozen trunk, shared among processes: an image is computed by one and given to all."""

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
"""The tokens (n, ...) of the images that could be decoded, if any, and of each image what was wrong with it."""


class SharedTokenSource(TokenSource):
    """Gives every process the same tokens in the same batches as one `TokenSource` alone, to the bit.

    The processes take turns by batches: each reads, hashes and computes every n-th, keeps it in its cache, and sends it
    to the others. So an image is computed once, whether the processes see one cache, one for each machine, or none,
    and nobody waits for longer than a batch takes. All processes must ask for the same images at the same time.

    Args:
        source: of each process.
        accelerator: of the processes.
    """

    def __init__(self, source: TokenSource, accelerator: Accelerator) -> None:
        super().__init__(source.backbone, source.precision, source.batch_size, source.workers, source.cache)
        self._accelerator = accelerator

    def rows(
        self, images: Images, indices: Sequence[int], progress: str | None = None
    ) -> Iterator[Tensor | NestKALAError]:
        """The tokens of each image named, in that order, or why there are none."""
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
        for _ in computed:  # there is none, but what was computed is on the disk then
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
