"""What losses are called with, checked once for all of them."""

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
        indices: whole numbers (B,), which training images these are.
        anchors: the classes' text anchors in code space (C, b).
    """

    h: Tensor
    targets: Tensor
    indices: Tensor
    anchors: Tensor | None = None


def checked(given: Inputs, num_classes: int | None = None) -> Inputs:
    """The batch as `HashLoss.terms` takes it: multi-hot labels, all in h's dtype, single precision at least.

    Indices are made int64, for torch takes uint8 for a mask.

    Args:
        given: as it came.
        num_classes: C, where it is known; anchors tell it, too.

    Raises:
        ValueError: a shape, dtype or range that is wrong, or sizes that do not fit together; says which.
    """
    h, targets, indices, anchors = given
    if h.ndim != 2 or not h.is_floating_point():
        raise ValueError(f"h must be relaxed codes (B, b), floating, not {h.dtype} {tuple(h.shape)}")
    if indices.ndim != 1 or indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(f"indices must be whole numbers (B,), int64, not {indices.dtype} {tuple(indices.shape)}")
    if anchors is not None and (anchors.ndim != 2 or anchors.shape[1] != h.shape[1]):
        raise ValueError(f"anchors {tuple(anchors.shape)} do not fit h {tuple(h.shape)}: they must be (C, b)")
    if num_classes is None and anchors is not None:
        num_classes = len(anchors)
    targets = multi_hot(targets, num_classes)
    if not len(h) == len(targets) == len(indices):
        raise ValueError(f"{len(h)} rows of h do not fit {len(targets)} rows of targets and {len(indices)} indices")
    if anchors is not None and len(anchors) != targets.shape[1]:
        raise ValueError(f"anchors of {len(anchors)} classes do not fit targets of {targets.shape[1]} classes")
    h = at_least_single(h)
    return Inputs(h, targets.to(h.dtype), indices.long(), None if anchors is None else anchors.to(h.dtype))
