"""The interface of a backbone, whatever library it comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from PIL.Image import Image
from torch import Tensor

from ..images.preparation import Preparation
from .tower import Tower


@dataclass
class Backbone:
    """A frozen image tower with its preprocessing and text tower.

    Attributes:
        name: "library/model:weights", which loads the same backbone again.
        tower: the split network.
        preprocess: RGB image -> (3, H, W).
        preprocessing: the preprocessing as text, for cache keys and fingerprints.
        embed_text: sentences -> embeddings (n, d_t) in the space of the features, not necessarily normalized; None if
            the backbone has no text tower.
    """

    name: str
    tower: Tower
    preprocess: Callable[[Image], Tensor]
    preprocessing: str
    embed_text: Callable[[list[str]], Tensor] | None

    @property
    def preparation(self) -> Callable[[bytes | Image, str], Tensor]:
        """`prepare` without the tower, for use in other processes."""
        return Preparation(self.preprocess)

    def prepare(self, data: bytes | Image, name: str) -> Tensor:
        """Convert an encoded or decoded image to input for the trunk. Raises NestKALAError, which names it."""
        return self.preparation(data, name)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that identify the architecture (by name), the image tower's weights, and the preprocessing."""
        architecture = "/".join(self.name.partition(":")[0].split("/")[:2])  # the preprocessing covers a tag
        digest = blake2b(f"{architecture}\n{self.preprocessing}".encode(), digest_size=16)
        for name, tensor in sorted(self.tower.network.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy())
        return digest.hexdigest()
