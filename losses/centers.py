"""Nested hash centers: one binary code per class, far apart at every prefix length at once."""

import torch
from torch import Tensor

from .arguments import whole
from .dcc import dcc, random_codes

_FEW = 200  # classes; up to here trying one class at a time is fast, beyond it dominates the run time


def nested_centers(num_classes: int, bits: int, generator: torch.Generator, restarts: int = 32) -> Tensor:
    """Centers (num_classes, bits), entries -1 or +1, whose every prefix separates the classes well.

    Bits are chosen one at a time. A pair of classes that differs in d of the bits so far has weight exp(-d), and the
    next bit is the cut of the classes that separates the most weight, the best of `restarts` local optima. So bits
    are balanced, pairs that are still together are separated first, and about b bits separate up to 2^b classes.
    Beyond 200 classes the best cut is chosen by weights to the fourth power, because among so many pairs the closest
    ones would hardly count.

    Args:
        num_classes: 1 or more; with more than 2^b, classes share codes at length b. 1,000 classes take about two
            seconds at 64 bits and four at 128; a hundred take a moment.
        bits: the longest length, 1 or more.
        generator: source of randomness for the starting points.
        restarts: local searches per bit.

    Raises:
        ValueError: if there are no classes or no bits.

    Example:
        >>> centers = nested_centers(10, 64, torch.Generator().manual_seed(0))
        >>> short = centers[:, :8]  # good centers as well
    """
    num_classes, bits = whole("num_classes", num_classes, 1), whole("bits", bits, 1)
    distances = torch.zeros(num_classes, num_classes).fill_diagonal_(torch.inf)
    columns = []
    for _ in range(bits):
        weights = torch.exp(distances.min() - distances).nan_to_num()  # (C, C), at most 1; none for a single class
        cuts = random_codes(restarts, num_classes, generator)  # (restarts, C)
        if num_classes <= _FEW:
            cuts = dcc(cuts, torch.zeros_like(cuts), weights, sweeps=100)
        else:
            cuts = _descend(cuts, weights)
            weights = weights**4
        kept = ((cuts @ weights) * cuts).sum(dim=1)  # weight of pairs kept together minus weight of pairs separated
        best = cuts[kept.argmin()]
        distances += (best[:, None] != best).float()
        columns.append(best)
    return torch.stack(columns, dim=1)  # (C, bits)


def _descend(cuts: Tensor, weights: Tensor) -> Tensor:
    """Improve cuts (n, C) until no cut gains from moving a single class to the other side.

    In every cut at once, the class that gains most moves, until no gain exceeds what rounding could produce.
    """
    cuts, pulls = cuts.clone(), cuts @ weights  # (n, C) both; weight on side +1 minus weight on side -1
    noise = 32 * torch.finfo(weights.dtype).eps * weights.sum(dim=0).max()
    for _ in range(10 * len(weights)):  # about C / 2 steps suffice
        gain, best = (pulls * cuts).max(dim=1, keepdim=True)  # (n, 1)
        if not (gain > noise).any():
            break
        change = -2 * cuts.gather(1, best) * (gain > noise)
        pulls.addcmul_(weights[best[:, 0]], change)
        cuts.scatter_add_(1, best, change)
    return cuts


def majority_centers(targets: Tensor, centers: Tensor) -> Tensor:
    """Codes (N, bits) for multi-hot labels (N, C): the bitwise majority of an item's centers (C, bits).

    Entries are -1 or +1, and 0 for ties and for items without labels.
    """
    return (targets.to(centers) @ centers).sign()
