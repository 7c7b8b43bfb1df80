"""The objective of a run: the loss that the settings name, at every length."""

from functools import cache
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from ..heads import HashHead
from ..losses import (
    HashLoss,
    NestedLoss,
    TrainingSet,
    WithHSWD,
    hash_centers,
    majority_centers,
    nested_centers,
    random_codes,
)
from ..losses.discrete import DiscreteLoss
from ..plugins import find_plugin
from ..settings.groups import TrainingSettings
from ..utils.errors import NestKALAError, one_line, unknown_name


def make_loss(
    settings: TrainingSettings, head: HashHead, targets: Tensor, *, seed: int, centers: Tensor | None = None
) -> NestedLoss:
    """The objective that the settings ask for, at every length of the head, for training images with labels (N, C).

    Args:
        settings: loss and its options, weighting, distillation, centers.
        head: which makes the codes.
        targets: multi-hot labels (N, C).
        seed: draws codes, centers and what else a loss draws.
        centers: hash centers (C, L) that the head started from; without them they are drawn. Discrete codes start at
            the centers of an image's labels, by majority, or at random where there are none.

    Raises:
        NestKALAError: an unknown loss, options it does not take, images of several labels for a loss of one, or
            adaptive weighting of codes that do not nest.
    """
    kind, options = check_objective(settings, head, targets)
    training = _training_set(settings, head.lengths[-1], targets, seed, centers)

    def at_length(bits: int) -> HashLoss:
        try:
            loss: HashLoss = kind.for_training(bits, training, **options)
        except ValueError as error:
            raise NestKALAError(f"loss {settings.base_loss} at {bits} bits, {options}: {one_line(error)}") from error
        return loss if settings.loss == settings.base_loss else WithHSWD(loss)

    weighting = settings.weighting
    if weighting == "auto":
        weighting = "adaptive" if _shares_bits(head) else "uniform"
    return NestedLoss(head.lengths, at_length, weighting, settings.distillation, head.columns)


def check_objective(
    settings: TrainingSettings, head: HashHead, targets: Tensor
) -> tuple[type[HashLoss], dict[str, Any]]:
    """The loss that the settings name, at one length, and its options, where they fit head and labels.

    Raises:
        NestKALAError: as for `make_loss`.
    """
    name, kind = settings.base_loss, loss_class(settings)
    if not kind.multi_label and not (targets.sum(dim=1) == 1).all():
        raise NestKALAError(f"loss {name} needs images of exactly one class each, and some here have several or none")
    options: dict[str, Any] = dict(settings.loss_args)
    if name == "kiddo":
        options |= {"alpha": settings.alpha, "quantization": settings.beta, "gamma": settings.gamma}
    known = [key for key, given in signature(kind).parameters.items() if given.default is not Parameter.empty]
    for key in settings.loss_args:
        if name == "kiddo" and key == "quantization":
            raise NestKALAError("quantization of loss kiddo has a flag, --beta")
        if key in kind.renamed:
            raise NestKALAError(f"{key} of loss {name} is now called {kind.renamed[key]}")
        if key not in known:
            raise unknown_name(f"argument of loss {name}", key, known)
    # of a discrete loss it weighs the outputs' say in its codes, too
    if settings.loss != name and "quantization" in settings.loss_args and not issubclass(kind, DiscreteLoss):
        raise NestKALAError(f"quantization of loss {name} has no effect: HSWD replaces the term that it weighs")
    if settings.weighting == "adaptive" and not _shares_bits(head):
        name = type(head).__name__.removesuffix("HashHead").lower()
        raise NestKALAError(
            f"weighting adaptive balances lengths on the rows of one weight, which head {name} has not: set weighting "
            "uniform or halving"
        )
    return kind, options


def loss_class(settings: TrainingSettings) -> type[HashLoss]:
    """The loss that the settings name, HSWD beside it left out.

    Raises:
        NestKALAError: there is none of this name, or its package does not load.
    """
    found: type[HashLoss] = find_plugin("losses", settings.base_loss).load()
    return found


def _shares_bits(head: HashHead) -> bool:
    return head.nested and head.weight is not None


def _training_set(
    settings: TrainingSettings, length: int, targets: Tensor, seed: int, started_from: Tensor | None
) -> TrainingSet:
    num_train, num_classes = targets.shape

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    codes = random_codes(num_train, length, generator()).to(targets.dtype)  # (N, L)
    if started_from is not None:
        majority = majority_centers(targets, started_from.to(targets))
        codes = torch.where(majority == 0, codes, majority)

    @cache
    def longest() -> Tensor:
        return nested_centers(num_classes, length, generator())

    def centers(bits: int) -> Tensor:
        if settings.centers == "independent":
            return hash_centers(num_classes, bits, generator()).to(targets)
        return (longest() if started_from is None else started_from)[:, :bits].to(targets)

    return TrainingSet(targets, codes, centers, seed)
