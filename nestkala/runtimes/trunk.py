"""Choose the backend that computes the tokens of a run: the frozen trunk alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..backbones import Backbone, Tower
from ..backbones.tower import beyond_half
from .agreement import sample_images
from .choice import choose, exported, refusal_of
from .names import Backend
from .tower import RuntimeTower

MAX_ERROR = 1e-3
"""Largest relative difference of the tokens from torch's that "auto" accepts. In measurements, float32 rounding caused
at most 2e-4, bfloat16 1e-2."""


class TrunkEncoder(nn.Module):
    """Prepared images (B, 3, H, W) -> their tokens (B, ...) in single precision."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        return self.tower.unchecked_trunk(images).float()


def trunk_on(backend: str, frozen: Backbone, precision: str) -> tuple[Backend, Callable[[Tensor], Tensor]]:
    """The backend in use, and a function for `Tower.trunk`, images (B, 3, H, W) -> tokens (B, ...) in half precision.

    Args:
        backend: one of `Backend`. "auto" compares tokens with torch's on `sample_images`.
        frozen: backbone on the device to compute on.
        precision: precision of the run.

    Raises:
        NestKALAError: as for `choose`.
    """
    network = TrunkEncoder(frozen.tower).eval()
    made_of = {"network": frozen.fingerprint, "part": f"before the last {frozen.tower.num_adapted} blocks"}

    @torch.no_grad()
    def objection(name: str, tower: RuntimeTower) -> str:
        images = torch.stack([frozen.preprocess(image) for image in sample_images()])
        expected = network(images)
        error = float((tower.embed(images) - expected).norm() / expected.norm())
        return "" if error <= MAX_ERROR else f"{name} changes the tokens by {error:.1%}, more than {MAX_ERROR:.1%}"

    chosen, tower = choose(
        backend, refusal_of(precision, frozen), lambda name: exported(name, network, frozen, made_of), objection
    )
    if tower is None:
        return "torch", frozen.tower.trunk

    def compute(images: Tensor) -> Tensor:
        tokens = tower.embed(images)
        halved = tokens.half()
        if not torch.isfinite(halved).all():
            raise beyond_half(tokens)
        return halved

    return chosen, compute
