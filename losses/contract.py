"""The contract of a hashing objective at one code length."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .inputs import Inputs, checked
from .targets import training_labels


class TermsError(TypeError):
    """What a loss's `terms` returned is no dict of names and scalars."""


@dataclass(frozen=True)
class TrainingSet:
    """What a loss may want to know of the training set before it begins.

    Attributes:
        targets: labels of all training images, multi-hot (N, C); class indices (N,) are made so.
        codes: where discrete codes start (N, L), entries -1 or +1; every length takes its prefix.
        centers: length -> hash centers (C, length), entries -1 or +1, made when asked for.
        seed: for what a loss draws itself.
    """

    targets: Tensor
    codes: Tensor
    centers: Callable[[int], Tensor]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", training_labels(self.targets))


class HashLoss(nn.Module, ABC):
    """A hashing objective at one code length b.

    A subclass writes `terms`; whatever it remembers between batches (memories, discrete codes) it keeps in
    buffers, so that it travels in checkpoints, and renews in `end_epoch`. It is called like a function, with class
    indices or multi-hot labels; under `eval()` or `torch.no_grad()` nothing is remembered.

    The batch is the global one: with several processes each of them sees all of it, so buffers stay equal
    everywhere without communication. Parameters of its own are trained with the network's.

    Attributes:
        paper: where it comes from, for lists.
        multi_label: whether images may have several labels.
        uses_anchors: whether the loss reads the anchors; if not, what makes them is not trained.
        quantization_term: name of the term in `terms` that draws h to its signs, which `WithHSWD` replaces. A loss
            without such a term has none of this name.
        renamed: {former name of a constructor's argument: its name now}; the former is refused.
        num_classes: C, to be set by a loss that holds something for every class, so that class indices make C columns;
            None, the default: the loss does not know.
    """

    paper: ClassVar[str] = ""
    multi_label: ClassVar[bool] = True
    uses_anchors: ClassVar[bool] = False
    quantization_term: ClassVar[str] = "quantization"
    renamed: ClassVar[Mapping[str, str]] = {}
    num_classes: int | None = None

    def __new__(cls, *_: Any, **options: Any) -> Self:
        for former in options.keys() & cls.renamed.keys():
            raise TypeError(f"{cls.__name__}: argument {former} is now called {cls.renamed[former]}")
        return super().__new__(cls)

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        """The loss at one length, for this training set; `options` are further arguments of the constructor."""
        return cls(**options)

    @property
    def learns(self) -> bool:
        """Whether a batch is trained on: neither under `eval()` nor without gradient. Only then is it remembered."""
        return self.training and torch.is_grad_enabled()

    @abstractmethod
    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """The summands of the loss, by name, weighted already. A loss with a memory takes note of h where it `learns`.

        It is given what calling the loss has checked.

        Args:
            h: relaxed codes (B, b) in (-1, 1), in single precision or double.
            targets: multi-hot labels (B, C), 0 or 1, in h's dtype.
            indices: int64 (B,), which training images these are, 0..N-1.
            anchors: the classes' text anchors in code space (C, b), in h's dtype, for losses that use them.

        Returns:
            Scalars that sum to the loss.
        """

    def forward(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> Tensor:
        """The loss, a scalar: the sum of `terms`.

        Args:
            h: relaxed codes (B, b) in (-1, 1), of any floating dtype.
            targets: class indices (B,), whole numbers of 0 or more, or multi-hot labels (B, C), 0 or 1, of any dtype.
            indices: whole numbers (B,), which training images these are, 0..N-1.
            anchors: the classes' text anchors in code space (C, b), for losses that use them.

        Raises:
            ValueError: arguments of another shape, dtype or range, or that do not fit together.
            TermsError: `terms` gave no dict of scalars.
        """
        given = checked(Inputs(h, targets, indices, anchors), self.num_classes)
        return sum(terms_of(self, given).values(), start=given.h.new_zeros(()))

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

        Asked for right after `end_epoch`, with the same anchors. None, the default: there is none.
        """
        return None


def terms_of(loss: HashLoss, given: Inputs) -> dict[str, Tensor]:
    """What the loss's `terms` gives for inputs that are `checked`, a dict of its own.

    Raises:
        TermsError: it is no dict, empty, or has names that are no words or values that are no scalars.
    """
    terms: object = loss.terms(*given)
    name = type(loss).__name__
    if not isinstance(terms, dict):
        what = f"a tensor {tuple(terms.shape)}" if isinstance(terms, Tensor) else f"a {type(terms).__name__}"
        raise TermsError(f'{name}.terms must return a dict of names and scalars, {{"term": value}}, not {what}')
    if not terms:
        raise TermsError(f"{name}.terms must return one term at least, not an empty dict")
    for key, value in terms.items():
        if not isinstance(key, str):
            raise TermsError(f"{name}.terms must name its terms by words, not by {key!r}")
        if not isinstance(value, Tensor) or value.shape:
            what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TermsError(f"{name}.terms: '{key}' must be a scalar tensor, and is {what}")
    return dict(terms)
