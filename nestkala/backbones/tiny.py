"""The built-in backbone: a small ViT for 32x32 images that needs no download. For now its weights are random."""

import json

from timm.data import create_transform
from timm.models.vision_transformer import VisionTransformer

from ..seeding import seeded
from .contract import Backbone
from .timm import TimmTower

_PREPROCESSING = {
    "input_size": (3, 32, 32),
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "crop_pct": 1.0,
}


def load(num_adapted: int) -> Backbone:
    """The built-in backbone (2.8M parameters), 64 patch tokens of width 192, feature of 384."""
    with seeded(0):
        vit = VisionTransformer(
            img_size=32,
            patch_size=4,
            embed_dim=192,
            depth=6,
            num_heads=3,
            num_classes=384,
            class_token=False,
            global_pool="avg",
        )
    return Backbone(
        name="tiny:random",
        tower=TimmTower(vit, num_adapted),
        preprocess=create_transform(**_PREPROCESSING, is_training=False),
        preprocessing=json.dumps(_PREPROCESSING, sort_keys=True),
        embed_text=None,
    )
