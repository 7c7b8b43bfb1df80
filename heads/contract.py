"""The contract of a hash head: relaxed codes of every length, side by side in one tensor."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn


def check_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return `lengths` as a tuple; they must be ints, strictly ascending and at least 1.

    Raises:
        ValueError: names the lengths that are not so.
    """
    whole = all(type(b) is int and b >= 1 for b in lengths)
    if not (len(lengths) and whole and all(a < b for a, b in itertools.pairwise(lengths))):
        raise ValueError(f"lengths must be ascending whole numbers of bits, 1 or more, not {list(lengths)}")
    return tuple(lengths)


def initialized(layer: nn.Linear) -> nn.Linear:
    """The layer from features to logits as heads start it: weight ~ N(0, 0.01^2), bias 0."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


class HashHead(nn.Module, ABC):
    """`logits`, optional BatchNorm, tanh; `columns` tells which columns of the output are a length's code.

    A subclass makes its layers and writes `logits`; `weight` and `width` are properties, not names for its layers. It
    is made with the arguments below and no others. Where it says that its codes nest, a shorter code is the first
    columns of a longer one and the output is as wide as the longest; else the codes stand one behind the other.

    Args:
        in_features: width d of the features.
        lengths: code lengths in bits, ascending.
        batch_norm: normalize every bit over the batch before tanh. Center-based losses need it; in training it
            refuses a batch of one.

    Attributes:
        paper: where it comes from, for lists.
        nested: whether a shorter code is the prefix of a longer one.

    Raises:
        ValueError: lengths that are not ascending positive ints.
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
        """Features (B, d) -> real numbers (B, width), whose signs are the bits of all codes."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, d) -> relaxed codes (B, width) in (-1, 1). With BatchNorm in training, ValueError for B = 1."""
        return torch.tanh(self.norm(self.logits(x)))

    def extra_repr(self) -> str:
        """What `repr` says beside the layers."""
        return f"in_features={self.in_features}, lengths={self.lengths}, nested={self.nested}"

    @classmethod
    def width_for(cls, lengths: Sequence[int]) -> int:
        """How many columns the output has."""
        return lengths[-1] if cls.nested else sum(lengths)

    @property
    def width(self) -> int:
        """How many columns the output has."""
        return self.width_for(self.lengths)

    @property
    def weight(self) -> Tensor | None:
        """The weight (L, d) whose first b rows make the code of b bits, which `NestedLoss` balances the lengths on.

        None where there is no such weight.
        """
        return None

    def columns(self, bits: int) -> slice:
        """Where in the output the code of this length stands.

        Raises:
            ValueError: not a length the head has: 1 to the longest where codes nest, else one of `lengths`.
        """
        if self.nested:
            if type(bits) is not int or not 1 <= bits <= self.lengths[-1]:
                raise ValueError(f"bits must be a whole number from 1 to {self.lengths[-1]}, not {bits!r}")
            return slice(0, bits)
        if type(bits) is not int or bits not in self.lengths:
            known = ", ".join(map(str, self.lengths))
            raise ValueError(f"bits must be one of {known}, whose codes do not nest, not {bits!r}")
        start = sum(b for b in self.lengths if b < bits)
        return slice(start, start + bits)
