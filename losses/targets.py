"""Labels given as class indices or multi-hot, converted to multi-hot labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import can_be_looked_at

MOST_CLASSES = 100_000


def multi_hot(targets: Tensor, num_classes: int | None = None) -> Tensor:
    """Labels as multi-hot labels (B, C), 0 or 1. Multi-hot input is returned unchanged.

    Args:
        targets: class indices (B,), whole numbers of 0 or more, or multi-hot labels (B, C), of any dtype.
        num_classes: C, or None if unknown: class indices k then become columns 0 to the largest index, so that two
            images share a label if their indices are equal, and column k is class k.

    Raises:
        ValueError: if the shape, dtype or number of classes is wrong, there is a single column and `num_classes` is
            not 1, entries are not 0 or 1 (checked on the CPU only), or indices are out of range (below 100,000 if C
            is unknown).
    """
    if targets.ndim == 1:
        return _from_indices(targets, num_classes)
    rows = f"({len(targets)},)" if targets.ndim else "(B,)"
    if targets.ndim != 2:
        raise ValueError(
            f"targets must be class indices {rows} or multi-hot labels (B, C), not of shape {tuple(targets.shape)}"
        )
    columns = targets.shape[1]
    if columns == 1 and num_classes != 1:
        raise ValueError(f"targets {tuple(targets.shape)} have a single column: pass class indices as {rows}")
    if num_classes is not None and columns != num_classes:
        raise ValueError(f"targets have {columns} classes, expected {num_classes}")
    if targets.dtype != torch.bool and can_be_looked_at(targets):
        wrong = (targets != 0) & (targets != 1)
        if wrong.any():
            raise ValueError(f"multi-hot targets must be 0 or 1, but contain {targets[wrong][0].item():g}")
    return targets


def training_labels(targets: Tensor) -> Tensor:
    """Labels of a whole training set as multi-hot labels (N, C).

    Like `multi_hot`, but a single column that does not hold integers is read as the labels of a single class.

    Raises:
        ValueError: as for `multi_hot`.
    """
    whole = not (targets.is_floating_point() or targets.dtype == torch.bool)
    return multi_hot(targets, 1 if targets.ndim == 2 and targets.shape[1] == 1 and not whole else None)


def _from_indices(targets: Tensor, num_classes: int | None) -> Tensor:
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise ValueError(f"class indices must be integers, such as torch.int64, not {targets.dtype}")
    targets = targets.long()
    least, largest = (int(targets.min()), int(targets.max())) if len(targets) else (0, 0)
    most = MOST_CLASSES if num_classes is None else num_classes
    if least < 0 or largest >= most:
        raise ValueError(f"class indices must be 0 to {most - 1}, but contain {least if least < 0 else largest}")
    return F.one_hot(targets, largest + 1 if num_classes is None else num_classes)
