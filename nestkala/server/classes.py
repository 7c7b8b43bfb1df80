"""The classes that a model knows, and which images of an index it assigns to each, by their codes alone."""

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ..hasher import Hasher
from ..index.contract import SearchIndex
from ..index.prefix_index import PrefixIndex
from ..utils.errors import NestKALAError

_CHUNK = 2**16
_KEPT = 8
"""Classes whose images are kept as an index of their own."""


class Classes:
    """Which images of an index a model assigns to which of its classes; found out once, when it is asked for.

    No image is read: each belongs to the class whose code is nearest to its own. None of the classes are images nearer
    to a kind of things without a name.

    Args:
        index: of codes that the model made.
        hasher: the model.
    """

    def __init__(self, index: SearchIndex, hasher: Hasher) -> None:
        self._index, self._hasher = index, hasher
        self._part = lru_cache(maxsize=_KEPT)(self._made)

    @property
    def exist(self) -> bool:
        """Whether the model has classes with codes, and the index is one whose codes can be looked through."""
        if not isinstance(self._index, PrefixIndex) or not self._hasher.class_names:
            return False
        return self._hasher.spec.has_text_codes

    def counts(self) -> dict[str, int]:
        """How many images each class has, most first; classes without any are left out."""
        numbers = np.bincount(self._assigned[self._assigned >= 0], minlength=len(self._hasher.class_names))
        named = sorted(zip(self._hasher.class_names, numbers.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
        return {name: number for name, number in named if number}

    def code(self, name: str) -> NDArray[np.uint8]:
        """The code of a class, packed, (1, bytes)."""
        return self._codes[[self._place(name)]]

    def images_of(self, name: str, with_metadata: bool = False) -> PrefixIndex:
        """The images of a class as an index. Raises NestKALAError where the model has no such class."""
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
