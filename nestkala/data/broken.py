"""Skip images that cannot be decoded."""

from multiprocessing.pool import ThreadPool
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from ..images.decoding import decode_image
from ..utils.errors import NestKALAError
from .dataset import ImageDataset

Dataset = TypeVar("Dataset", bound=ImageDataset)


def without_broken(dataset: Dataset) -> tuple[Dataset, list[str]]:
    """The images that can be decoded, and the names of those that cannot. Decodes every image once.

    Raises NestKALAError if no image can be decoded.
    """

    def readable(index: int) -> bool:
        try:
            decode_image(dataset.read(index), dataset.names[index], side=1)
        except NestKALAError:
            return False
        return True

    with ThreadPool() as pool:
        checks = pool.imap(readable, range(len(dataset)), chunksize=32)
        intact = np.fromiter(
            tqdm(checks, "checking images", total=len(dataset), unit="image", disable=None), dtype=bool
        )
    broken = [dataset.names[index] for index in np.flatnonzero(~intact).tolist()]
    if not broken:
        return dataset, broken
    if not intact.any():
        raise NestKALAError(f"none of the {len(dataset)} images can be read, starting with {broken[0]!r}")
    return dataset.take(np.flatnonzero(intact)), broken
