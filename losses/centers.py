"""Hash centers: one binary code per class, far apart from each other at every prefix length at once."""

import torch
from torch import Tensor

from .arguments import whole
from .dcc import dcc, random_codes

_FEW = 200  # classes: up to here to try class after class is quick, beyond it takes most of the time


def nested_centers(num_classes: int, bits: int, generator: torch.Generator, restarts: int = 32) -> Tensor:
    """Centers (num_classes, bits), entries -1 or +1, whose every prefix separates the classes well.

    Bit by bit: a pair of classes weighs exp(-d) when d of the bits so far tell it apart, and the next bit is the
    cut of the classes, the best of `restarts` local optima, that separates most weight. So bits are balanced, pairs
    that are still together are separated first, and with 2^b classes or fewer about b bits tell all of them apart.
    Beyond 200 classes a pair's weight counts to the fourth power where the best is chosen, for among so many pairs the
    closest weigh little.

    Args:
        num_classes: 1 or more; more than 2^b classes share codes at length b. 1,000 at 64 bits take about two seconds,
            at 128 four; a hundred a moment.
        bits: the longest length, 1 or more.
        generator: draws the starts.
        restarts: local searches per bit.

    Raises:
        ValueError: no classes, or no bits.

    Example:
        >>> centers = nested_centers(10, 64, torch.Generator().manual_seed(0))
        >>> short = centers[:, :8]  # good centers, too
    """
    num_classes, bits = whole("num_classes", num_classes, 1), whole("bits", bits, 1)
    distances = torch.zeros(num_classes, num_classes).fill_diagonal_(torch.inf)
    columns = []
    for _ in range(bits):
        weights = torch.exp(distances.min() - distances).nan_to_num()  # (C, C), the largest 1; a lone class has none
        cuts = random_codes(restarts, num_classes, generator)  # (restarts, C)
        if num_classes <= _FEW:
            cuts = dcc(cuts, torch.zeros_like(cuts), weights, sweeps=100)
        else:
            cuts = _descend(cuts, weights)
            weights = weights**4
        kept = ((cuts @ weights) * cuts).sum(dim=1)  # weight together less weight apart
        best = cuts[kept.argmin()]
        distances += (best[:, None] != best).float()
        columns.append(best)
    return torch.stack(columns, dim=1)  # (C, bits)


def _descend(cuts: Tensor, weights: Tensor) -> Tensor:
    """Cuts (n, C), in each of which no class that changes sides gains anything, from `cuts`.

    The class that gains most changes sides, in all cuts at once, until none gains more than rounding may feign.
    """
    cuts, pulls = cuts.clone(), cuts @ weights  # (n, C) both; of a class's weight what is on side +1 less what is on -1
    noise = 32 * torch.finfo(weights.dtype).eps * weights.sum(dim=0).max()
    for _ in range(10 * len(weights)):  # about half as many steps as there are classes are enough
        gain, best = (pulls * cuts).max(dim=1, keepdim=True)  # (n, 1)
        if not (gain > noise).any():
            break
        change = -2 * cuts.gather(1, best) * (gain > noise)
        pulls.addcmul_(weights[best[:, 0]], change)
        cuts.scatter_add_(1, best, change)
    return cuts


def majority_centers(targets: Tensor, centers: Tensor) -> Tensor:
    """Codes (N, bits) for multi-hot labels (N, C): bit by bit what most of an item's centers (C, bits) have.

    Entries are -1 or +1, and 0 where the centers disagree half and half or there is no label.
    """
    return (targets.to(centers) @ centers).sign()
