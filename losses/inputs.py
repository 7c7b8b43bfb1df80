"""The inputs of a loss, checked in one place."""

from typing import NamedTuple

import torch
from torch import Tensor

from .precision import at_least_single
from .targets import multi_hot


class Inputs(NamedTuple):
    """A batch, in the order of `HashLoss.terms`.

    Attributes:
        h: relaxed codes (B, b) in (-1, 1).
        targets: class indices (B,) or multi-hot labels (B, C).
        indices: whole numbers (B,), positions of these images in the training set.
        anchors: the classes' text anchors in code space (C, b).
    """

    h: Tensor
    targets: Tensor
    indices: Tensor
    anchors: Tensor | None = None


def checked(given: Inputs, num_classes: int | None = None) -> Inputs:
    """The batch as `HashLoss.terms` expects it: multi-hot labels, all in h's dtype, at least single precision.

    Indices become int64, because torch treats uint8 as a mask.

    Args:
        given: the inputs as passed.
        num_classes: C, if known; anchors also determine it.

    Raises:
        ValueError: names the input whose shape, dtype or range is wrong, or the sizes that do not match.
    """
    h, targets, indices, anchors = given
    if h.ndim != 2 or not h.is_floating_point():
        raise ValueError(f"h must be floating-point relaxed codes (B, b), not {h.dtype} {tuple(h.shape)}")
    if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(f"indices must be whole numbers (B,), int64, not {indices.dtype} {tuple(indices.shape)}")
    if anchors is not None and (anchors.ndim != 2 or anchors.shape[1] != h.shape[1]):
        raise ValueError(f"anchors must be (C, b), but are {tuple(anchors.shape)} with h {tuple(h.shape)}")
    if num_classes is None and anchors is not None:
        num_classes = len(anchors)
    targets = multi_hot(targets, num_classes)
    if not len(h) == len(targets) == len(indices):
        raise ValueError(f"{len(h)} rows of h do not fit {len(targets)} rows of targets and {len(indices)} indices")
    if anchors is not None and len(anchors) != targets.shape[1]:
        raise ValueError(f"anchors of {len(anchors)} classes do not fit targets of {targets.shape[1]} classes")
    h = at_least_single(h)
    return Inputs(h, targets.to(h.dtype), indices.long(), None if anchors is None else anchors.to(h.dtype))
