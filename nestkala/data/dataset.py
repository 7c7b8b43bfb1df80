"""The interface of labeled image collections."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..utils.errors import NestKALAError

ARCHIVE = "archive"
"""Name of the unlabeled part of a data set."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageDataset(ABC):
    """N encoded images with labels from C classes. Keeps no files open; `read` must be thread-safe.

    names: N unique names, independent of the collection's location.
    targets: bool (N, C), True for every class that the image shows; rows may be empty.
    class_names: the C classes, in the order of the columns.
    parts: image indices of the parts that the source defines ("train", "database", "test"), and of an archive
        (`ARCHIVE`), which has no labels; may be empty.
    notes: messages for the user on what was skipped or merged while reading.
    """

    names: Sequence[str]
    targets: npt.NDArray[np.bool_]
    class_names: tuple[str, ...]
    parts: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded file of one image. Raises NestKALAError if it cannot be read."""

    def content(self, index: int) -> Path | bytes:
        """What identifies the pixels of an image: its file, or bytes. Raises NestKALAError as `read` does."""
        return self.read(index)

    def __len__(self) -> int:
        return len(self.names)

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        """The collection of only these images, in this order; parts keep their remaining images."""
        place = np.full(len(self), -1, dtype=np.int64)
        place[indices] = np.arange(len(indices))
        places = {part: place[members] for part, members in self.parts.items()}
        return replace(
            self,
            names=[self.names[index] for index in indices],
            targets=self.targets[indices],
            parts={part: members[members >= 0] for part, members in places.items()},
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FileDataset(ImageDataset):
    """Images in files, named by their paths relative to the folder `root`."""

    root: Path

    def path(self, index: int) -> Path:
        """The file of one image."""
        return self.root / self.names[index]

    def content(self, index: int) -> Path:
        return self.path(index)

    def read(self, index: int) -> bytes:
        try:
            return self.path(index).read_bytes()
        except OSError as error:
            raise NestKALAError(f"cannot read image {self.names[index]!r}: {error.strerror}") from error


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayDataset(ImageDataset):
    """Images in memory: uint8, (N, height, width) for gray or (N, height, width, 3); read as PNG files."""

    images: npt.NDArray[np.uint8]

    def read(self, index: int) -> bytes:
        buffer = BytesIO()
        Image.fromarray(self.images[index]).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def content(self, index: int) -> bytes:
        pixels = self.images[index]
        return f"pixels {pixels.dtype} {pixels.shape}\n".encode() + pixels.tobytes()

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        return replace(super().take(indices), images=self.images[indices])
