"""The interface of a hashing loss at one code length."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .inputs import Inputs, checked
from .targets import training_labels


class TermsError(TypeError):
    """A loss's `terms` did not return a dict of names and scalars."""


@dataclass(frozen=True)
class TrainingSet:
    """What a loss may need to know about the training set before training starts.

    Attributes:
        targets: labels of all training images, multi-hot (N, C); class indices (N,) are converted.
        codes: initial discrete codes (N, L), entries -1 or +1; every length takes its prefix.
        centers: length -> hash centers (C, length), entries -1 or +1, computed on request.
        seed: seed for the loss's own random draws.
    """

    targets: Tensor
    codes: Tensor
    centers: Callable[[int], Tensor]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", training_labels(self.targets))


class HashLoss(nn.Module, ABC):
    """A hashing loss at one code length b.

    A subclass implements `terms`. State that it keeps between batches (memories, discrete codes) belongs in buffers,
    so that checkpoints include it, and is updated in `end_epoch`. Call a loss like a function, with class indices or
    multi-hot labels; under `eval()` or `torch.no_grad()` it remembers nothing.

    The batch is the global one: with several processes each of them sees all of it, so buffers stay equal
    everywhere without communication. A loss's own parameters are trained with the network's.

    Attributes:
        paper: the source, shown in listings.
        multi_label: whether images may have several labels.
        uses_anchors: whether the loss reads the anchors; if not, the layer that computes them is not trained.
        quantization_term: name of the entry of `terms` that pulls h toward its signs, which `WithHSWD` replaces. A
            loss without such a term has no entry of this name.
        renamed: {former name of a constructor argument: current name}; former names are rejected.
        num_classes: C, set by losses that hold something for every class, so that class indices become C columns;
            None, the default, if the loss does not know.
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
        """The loss at one length for this training set; `options` are further constructor arguments."""
        return cls(**options)

    @property
    def learns(self) -> bool:
        """Whether batches are trained on, that is, not under `eval()` or without gradient. Only then it remembers."""
        return self.training and torch.is_grad_enabled()

    @abstractmethod
    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        """The loss's summands by name, already weighted. A loss with a memory stores h if it `learns`.

        Arguments have already been checked by `forward`.

        Args:
            h: relaxed codes (B, b) in (-1, 1), in single or double precision.
            targets: multi-hot labels (B, C), 0 or 1, in h's dtype.
            indices: int64 (B,), positions of these images in the training set, 0..N-1.
            anchors: the classes' text anchors in code space (C, b), in h's dtype, for losses that use them.

        Returns:
            Scalars that sum to the loss.
        """

    def forward(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> Tensor:
        """The loss, a scalar: the sum of `terms`.

        Args:
            h: relaxed codes (B, b) in (-1, 1), of any floating dtype.
            targets: class indices (B,), whole numbers of 0 or more, or multi-hot labels (B, C), 0 or 1, of any dtype.
            indices: whole numbers (B,), positions of these images in the training set, 0..N-1.
            anchors: the classes' text anchors in code space (C, b), for losses that use them.

        Raises:
            ValueError: if an argument has the wrong shape, dtype or range, or arguments do not match.
            TermsError: if `terms` does not return a dict of scalars.
        """
        given = checked(Inputs(h, targets, indices, anchors), self.num_classes)
        return sum(terms_of(self, given).values(), start=given.h.new_zeros(()))

    @property
    def database_codes(self) -> Tensor | None:
        """Discrete codes (N, b) of the training images, entries -1 or +1, if the loss intends them to be searched.

        If the training images are the database, these codes replace the network's outputs. None: they do not.
        """
        return None

    def sample(self, epoch: int) -> Tensor | None:
        """The training images, int64 (n,), that this epoch (0 or more) uses; None, the default, for all.

        Every length must return the same images, and always the same number.
        """
        return None

    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Called once after every epoch, without gradient, with the current anchors (C, b)."""

    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor | None:
        """The objective that `end_epoch` lowers by updating discrete codes: a scalar, summed over the training set.

        Called right after `end_epoch`, with the same anchors. None, the default, if there is none.
        """
        return None


def terms_of(loss: HashLoss, given: Inputs) -> dict[str, Tensor]:
    """The loss's `terms` for inputs that are `checked`, as a new dict.

    Raises:
        TermsError: if it is not a dict, is empty, has names that are not strings, or values that are not scalars.
    """
    terms: object = loss.terms(*given)
    name = type(loss).__name__
    if not isinstance(terms, dict):
        what = f"a tensor {tuple(terms.shape)}" if isinstance(terms, Tensor) else f"a {type(terms).__name__}"
        raise TermsError(f'{name}.terms must return a dict of names and scalars, {{"term": value}}, not {what}')
    if not terms:
        raise TermsError(f"{name}.terms must return at least one term, not an empty dict")
    for key, value in terms.items():
        if not isinstance(key, str):
            raise TermsError(f"{name}.terms must name its terms by strings, not {key!r}")
        if not isinstance(value, Tensor) or value.shape:
            what = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise TermsError(f"{name}.terms: '{key}' must be a scalar tensor, not {what}")
    return dict(terms)
