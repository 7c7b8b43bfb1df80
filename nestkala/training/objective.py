"""The objective of a run: the loss from the settings, at every length."""

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
    """The objective from the settings, at every length of the head, for training images with labels (N, C).

    Args:
        settings: loss and its options, weighting, distillation, centers.
        head: the head that computes the codes.
        targets: multi-hot labels (N, C).
        seed: seed for codes, centers and the loss's own draws.
        centers: hash centers (C, L) that the head started from; drawn if not given. Discrete codes start at the
            majority of the centers of an image's labels, or at random if there are no centers.

    Raises:
        NestKALAError: if the loss is unknown, its options are invalid, images have several labels and the loss takes
            one, or weighting is adaptive for codes that do not nest.
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
    """The class of the loss from the settings and its options, checked against head and labels.

    Raises:
        NestKALAError: see `make_loss`.
    """
    name, kind = settings.base_loss, loss_class(settings)
    if not kind.multi_label and not (targets.sum(dim=1) == 1).all():
        raise NestKALAError(f"loss {name} needs images with exactly one class each, but some have several or none")
    options: dict[str, Any] = dict(settings.loss_args)
    if name == "kiddo":
        options |= {"alpha": settings.alpha, "quantization": settings.beta, "gamma": settings.gamma}
    known = [key for key, given in signature(kind).parameters.items() if given.default is not Parameter.empty]
    for key in settings.loss_args:
        if name == "kiddo" and key == "quantization":
            raise NestKALAError("quantization of loss kiddo is set by its own flag, --beta")
        if key in kind.renamed:
            raise NestKALAError(f"{key} of loss {name} is now called {kind.renamed[key]}")
        if key not in known:
            raise unknown_name(f"argument of loss {name}", key, known)
    # for a discrete loss it also weighs the influence of the outputs on the codes
    if settings.loss != name and "quantization" in settings.loss_args and not issubclass(kind, DiscreteLoss):
        raise NestKALAError(f"quantization of loss {name} has no effect: HSWD replaces that term")
    if settings.weighting == "adaptive" and not _shares_bits(head):
        name = type(head).__name__.removesuffix("HashHead").lower()
        raise NestKALAError(
            f"weighting adaptive balances lengths on the rows of one weight, but head {name} has no such weight: use "
            "uniform or halving"
        )
    return kind, options


def loss_class(settings: TrainingSettings) -> type[HashLoss]:
    """The class of the loss from the settings, without HSWD.

    Raises:
        NestKALAError: if there is no loss of this name, or its package cannot be imported.
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
