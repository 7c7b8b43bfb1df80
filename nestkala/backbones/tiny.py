"""The built-in backbone: a miniature CLIP for 32x32 images, whose weights ship with the package."""

import json
from functools import partial
from typing import Any

import torch
from timm.data import create_transform
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ..utils.seeding import seeded
from .contract import Backbone
from .folding import fold_batch_norms
from .shipped import load_shipped
from .timm import TimmTower
from .tiny_text import embed_text

WEIGHTS_SHA256 = "dc578ccff5374fc054268f2a417c4cd3bb62f605ee6e023338659bb118fd3cf2"

PREPROCESSING = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "crop_pct": 1.0,
}


def load(weights: str | None, num_adapted: int) -> Backbone:
    """The built-in backbone (2.2M parameters), with 16 patch tokens of width 256 and 384 features.

    `scripts/pretrain_tiny.py` trained its feature to match all-MiniLM-L6-v2's embedding of "a photo of a {class}.";
    the model card next to the weights lists the data.

    Args:
        weights: None for the pretrained ones, or "random".
        num_adapted: number of last blocks in the tail.

    Raises:
        NestKALAError: if the weights file is missing or altered.
    """
    with seeded(0):
        vit = network()
    if weights is None:
        tensors, _ = load_shipped("tiny.safetensors", WEIGHTS_SHA256)
        vit.load_state_dict({name: tensor.to(vit.state_dict()[name].dtype) for name, tensor in tensors.items()})
    fold_batch_norms(vit.eval())
    return Backbone(
        name="tiny" if weights is None else f"tiny:{weights}",
        tower=TimmTower(vit, num_adapted),
        preprocess=create_transform(**PREPROCESSING, is_training=False),
        preprocessing=json.dumps(PREPROCESSING, sort_keys=True),
        embed_text=embed_text,
    )


def network() -> VisionTransformer:
    """The architecture, initialized by torch's current generator: convolutions down to 4x4, then two blocks."""
    return VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=256,
        depth=2,
        num_heads=4,
        num_classes=384,
        class_token=False,
        global_pool="avg",
        embed_layer=partial(ConvStem, widths=(48, 96, 192)),
    )


class ConvStem(nn.Module):
    """Images (B, 3, H, W) -> patch tokens (B, H/8 * W/8, d), by convolutions instead of one linear map per patch.

    Every width halves the resolution; all but the last add a residual block. With few small images, convolutions
    learn much faster than attention (Xiao et al., arXiv 2106.14881).
    """

    def __init__(self, img_size: int, embed_dim: int, widths: tuple[int, ...], **_: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *widths), widths, strict=False):
            layers += [_convolution(before, width, 2), nn.ReLU(inplace=True), _Residual(width)]
        self.layers = nn.Sequential(*layers[:-1], nn.Conv2d(widths[-1], embed_dim, 1))
        self.num_patches = (img_size // 2 ** len(widths)) ** 2

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)  # faster for convolutions on CPUs
        return self.layers(images).flatten(2).transpose(1, 2)  # (B, t, d)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width, 1), _convolution(width, width, 1)
        nn.init.zeros_(self.second.get_parameter("1.weight"))  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.second(self.first(x).relu())).relu()


def _convolution(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False),
        nn.BatchNorm2d(after),
    )
