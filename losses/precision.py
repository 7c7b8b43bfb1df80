"""Which precision losses compute in."""

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """x, but in single precision where it was in half: sums over a batch overflow that, or round its entries away."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
