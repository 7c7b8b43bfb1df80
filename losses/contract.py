"""The contract of a hashing objective at one code length."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from .precision import at_least_single


@dataclass(frozen=True)
class TrainingSet:
    """What a loss may want to know of the training set before it begins.

    Attributes:
        targets: multi-hot labels (N, C) of all training images.
        codes: where discrete codes start (N, L), entries -1 or +1; every length takes its prefix.
        centres: length -> hash centres (C, length), entries -1 or +1, made when asked for.
        seed: for what a loss draws itself.
    """

    targets: Tensor
    codes: Tensor
    centres: Callable[[int], Tensor]
    seed: int = 0


class HashLoss(nn.Module, ABC):
    """A hashing objective at one code length b.

    A subclass writes `terms`; whatever it remembers between batches (memories, discrete codes) it keeps in
    buffers, so that it travels in checkpoints, and renews in `end_epoch`.

    The batch is the global one: with several processes each of them sees all of it, so buffers stay equal
    everywhere without communication. Parameters of its own are trained with the network's.

    Attributes:
        paper: where it comes from, for lists.
        multi_label: whether images may have several labels.
        uses_anchors: whether the loss reads the anchors; if not, what makes them is not trained.
    """

    paper: ClassVar[str] = ""
    multi_label: ClassVar[bool] = True
    uses_anchors: ClassVar[bool] = False

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        """The loss at one length, for this training set; `options` are further arguments of the constructor."""
        return cls(**options)

    @abstractmethod
    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """The summands of the loss, by name, weighted already. A loss with a memory takes note of h, in any mode.

        Args:
            h: relaxed codes (B, b) in (-1, 1), in single precision or double.
            targets: multi-hot labels (B, C), 0 or 1, in h's dtype.
            indices: int64 (B,), which training images these are, 0..N-1.
            anchors: the classes' text anchors in code space (C, b), in h's dtype, for losses that use them.

        Returns:
            Scalars that sum to the loss.
        """

    def forward(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> Tensor:
        """The loss, a scalar: the sum of `terms`, which takes the same arguments. Here they may be of any dtype."""
        h = at_least_single(h)
        anchors = None if anchors is None else anchors.to(h.dtype)
        return sum(self.terms(h, targets.to(h.dtype), indices, anchors).values(), start=h.new_zeros(()))

    @property
    def database_codes(self) -> Tensor | None:
        """Discrete codes (N, b) of the training images, entries -1 or +1, of a loss that means them to be searched.

        Where the training images are the database they take the place of what the network gives; None: they do not.
        """
        return None

    def sample(self, epoch: int) -> Tensor | None:
        """Which training images, int64 (n,), this epoch (0 or more) passes over; None, the default: all of them.

        Every length must name the same, and always as many.
        """
        return None

    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Called once after every epoch, without gradient, with the anchors (C, b) of that moment."""

    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor | None:
        """What `end_epoch` lowers by renewing discrete codes: a scalar, a sum over the whole training set.

        Asked for right after `end_epoch`, with the same anchors. None, the default: there is none to tell.
        """
        return None
