"""The classes of a model, and the images in an index that it assigns to each by their codes."""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ..hasher import Hasher
from ..index.contract import SearchIndex
from ..index.prefix_index import PrefixIndex
from ..utils.errors import NestKALAError

_CHUNK = 2**16
_KEPT = 8
"""Number of classes whose images are cached as an index."""


class Classes:
    """Assigns the images in an index to the classes of a model; computed once, on demand.

    No image is read: each belongs to the class with the code nearest to its own. Images nearer to an unnamed kind of
    things belong to no class.

    Args:
        index: an index made with the model.
        hasher: the model.
    """

    def __init__(self, index: SearchIndex, hasher: Hasher) -> None:
        self._index, self._hasher = index, hasher
        self._part = lru_cache(maxsize=_KEPT)(self._made)

    @property
    def exist(self) -> bool:
        """Whether the model has class codes and the index is an index file, so that its codes can be read."""
        if not isinstance(self._index, PrefixIndex) or not self._hasher.class_names:
            return False
        return self._hasher.spec.has_text_codes

    def counts(self) -> dict[str, int]:
        """Number of images per class, largest first; empty classes are omitted."""
        numbers = np.bincount(self._assigned[self._assigned >= 0], minlength=len(self._hasher.class_names))
        named = sorted(zip(self._hasher.class_names, numbers.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
        return {name: number for name, number in named if number}

    def code(self, name: str) -> NDArray[np.uint8]:
        """The packed code of a class, (1, bytes)."""
        return self._codes[[self._place(name)]]

    def images_of(self, name: str, with_metadata: bool = False) -> PrefixIndex:
        """The images of a class as an index. Raises NestKALAError if the model has no such class."""
        return self._part(self._place(name), with_metadata)

    def _made(self, place: int, with_metadata: bool) -> PrefixIndex:
        index = self._index
        assert isinstance(index, PrefixIndex)
        members = self._assigned == place
        metadata = None
        if with_metadata:
            metadata = [one for is_member, (_, one) in zip(members, index.items(), strict=True) if is_member]
        return PrefixIndex.build(index.codes[members], index.ids.take(np.flatnonzero(members)), index.bits, metadata)

    def _place(self, name: str) -> int:
        if not self.exist or name not in self._hasher.class_names:
            raise NestKALAError(f"the model has no class {name[:100]!r}")
        return list(self._hasher.class_names).index(name)

    @cached_property
    def _codes(self) -> NDArray[np.uint8]:
        return self._hasher.class_codes()

    @cached_property
    def _assigned(self) -> NDArray[np.int64]:
        """The class of each image, (N,); -1 for none."""
        assert isinstance(self._index, PrefixIndex)
        codes = self._index.codes
        chunks = (codes[start : start + _CHUNK] for start in range(0, max(1, len(codes)), _CHUNK))
        return np.concatenate([self._hasher.classes_of_codes(chunk) for chunk in chunks])
