"""The interface of a hash head: relaxed codes of every length, side by side in one tensor."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return `lengths` as a tuple after checking that they are ints, strictly ascending and at least 1.

    Raises:
        ValueError: if they are not; the message names the lengths.
    """
    whole = all(type(b) is int and b >= 1 for b in lengths)
    if not (len(lengths) and whole and all(a < b for a, b in itertools.pairwise(lengths))):
        raise ValueError(f"lengths must be ascending whole numbers of bits, 1 or more, not {list(lengths)}")
    return tuple(lengths)


def initialized(layer: nn.Linear) -> nn.Linear:
    """Initialize the layer from features to logits as heads do: weight ~ N(0, 0.01^2), bias 0."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class HashHead(nn.Module, ABC):
    """Base class of hash heads: `logits`, then optional BatchNorm and tanh.

    A subclass creates its layers and implements `logits`. It must not name a layer `weight` or `width`, which are
    properties, and its constructor takes exactly the arguments below. If `nested` is true, a shorter code is the
    first columns of a longer one and the output is as wide as the longest; otherwise the codes are concatenated.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending.
        batch_norm: normalize every bit over the batch before tanh. Center-based losses need it; a training batch
            must then hold at least two images.

    Attributes:
        paper: the source, shown in listings.
        nested: whether a shorter code is the prefix of a longer one.

    Raises:
        ValueError: if the lengths are not ascending positive ints.
    """

    paper: ClassVar[str] = ""
    nested: ClassVar[bool] = False

    def __init__(self, in_features: int, lengths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__()
        self.in_features = in_features
        self.lengths = check_lengths(lengths)
        self.norm = nn.BatchNorm1d(self.width_for(self.lengths)) if batch_norm else nn.Identity()

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Features (B, d) -> real numbers (B, width) whose signs are the bits of all codes."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) -> relaxed codes (B, width) in (-1, 1). With BatchNorm in training, B = 1 is a ValueError."""
        return torch.tanh(self.norm(self.logits(x)))

    def extra_repr(self) -> str:
        """What `repr` shows in addition to the layers."""
        return f"in_features={self.in_features}, lengths={self.lengths}, nested={self.nested}"

    @classmethod
    def width_for(cls, lengths: Sequence[int]) -> int:
        """Number of output columns."""
        return lengths[-1] if cls.nested else sum(lengths)

    @property
    def width(self) -> int:
        """Number of output columns."""
        return self.width_for(self.lengths)

    @property
    def weight(self) -> Tensor | None:
        """The weight (L, d) whose first b rows make the b-bit code; `NestedLoss` uses it to balance the lengths.

        None if there is no such weight.
        """
        return None

    def columns(self, bits: int) -> slice:
        """The output columns that hold the code of this length.

        Raises:
            ValueError: if the head has no such length: 1 to the longest if codes nest, else one of `lengths`.
        """
        if self.nested:
            if type(bits) is not int or not 1 <= bits <= self.lengths[-1]:
                raise ValueError(f"bits must be a whole number from 1 to {self.lengths[-1]}, not {bits!r}")
            return slice(0, bits)
        if type(bits) is not int or bits not in self.lengths:
            known = ", ".join(map(str, self.lengths))
            raise ValueError(f"bits must be one of {known}, because these codes do not nest, not {bits!r}")
        start = sum(b for b in self.lengths if b < bits)
        return slice(start, start + bits)
