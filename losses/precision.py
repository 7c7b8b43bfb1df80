"""The precision that losses compute in."""

import torch
from torch import Tensor


def at_least_single(x: Tensor) -> Tensor:
    """x in at least single precision: in half precision, sums over a batch overflow or round entries away."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
