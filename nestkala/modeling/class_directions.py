"""The linear layer that turns text anchors into the class directions of CLoRA."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassDirections(nn.Module):
    """Text anchors K (C, d_t) -> class directions (C, d'): F of KALAHash, a linear layer K W^T + b.

    It never sees anything but K, so only the span of K matters to it. With fewer classes than d_t, W is kept in an
    orthonormal basis Q (C, d_t) of that span, as V = W Q^T (d', C), and K W^T = (K Q^T) V^T. The gradient of W lies in
    the span too. So SGD takes the same steps on V as on W, with momentum, weight decay and a limit on the norm as well,
    and they cost C / d_t of the time.

    Source: KALAHash (AAAI 2025) eq. 5.

    Args:
        anchors: text anchors K (C, d_t).
        width: d', width of the directions.

    Attributes:
        coordinates: K Q^T (C, min(C, d_t)).
        weight: V (d', min(C, d_t)).
        bias: b (d',).
    """

    coordinates: Tensor

    def __init__(self, anchors: Tensor, width: int) -> None:
        super().__init__()
        linear = nn.Linear(anchors.shape[1], width)
        coordinates, weight = in_span(anchors, linear.weight.detach())
        self.register_buffer("coordinates", coordinates)
        self.weight, self.bias = nn.Parameter(weight), linear.bias

    def forward(self) -> Tensor:
        """The class directions (C, d')."""
        return F.linear(self.coordinates, self.weight, self.bias)


def in_span(anchors: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors K (C, d_t) and a weight W (d', d_t) -> K Q^T and W Q^T, with orthonormal rows Q that span K.

    Both are returned as given if C is at least d_t.
    """
    if len(anchors) >= anchors.shape[1]:
        return anchors.clone(), weight
    basis = torch.linalg.qr(anchors.double().T).Q.T  # (C, d_t)
    return (anchors.double() @ basis.T).to(anchors), (weight.double() @ basis.T).to(weight)
