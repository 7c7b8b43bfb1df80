"""Frozen vision-language backbones by name: "library/model:weights"."""

from ..backbone_names import check_name, split_name
from .contract import Backbone
from .tower import AdaptableBlock, BlockAdapter, Projection, Tower

__all__ = [
    "AdaptableBlock",
    "Backbone",
    "BlockAdapter",
    "Projection",
    "Tower",
    "load_backbone",
]


def load_backbone(name: str, num_adapted: int) -> Backbone:
    """Load a backbone by name, with its last `num_adapted` blocks in the tail.

    Example:
        >>> backbone = load_backbone("open_clip/ViT-B-32-quickgelu:openai", num_adapted=1)

    Raises:
        NestKALAError: if a name is unknown, there are too few blocks, or weights are not available.
    """
    check_name(name)
    library, model, weights = split_name(name)
    match library:
        case "open_clip":
            from .open_clip import load as load_open_clip

            return load_open_clip(model, weights, num_adapted)
        case "timm":
            from .timm import load as load_timm

            return load_timm(model, weights, num_adapted)
        case "features":
            from .features import load as load_features

            return load_features(int(weights or 0), num_adapted)
        case "photo":
            from .photo import load as load_photo

            return load_photo(weights, num_adapted)
        case _:
            from .tiny import load as load_tiny

            return load_tiny(weights, num_adapted)
