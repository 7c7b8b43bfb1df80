"""timm's plain ViTs. They have no text tower: anchors come from an open_clip one or from a file."""

import json
from typing import Any

from torch import Tensor

from ..errors import NestKALAError, one_line, unknown_name
from ..seeding import seeded
from .contract import Backbone
from .tower import AdaptableBlock, Tower


def load(model: str, weights: str | None, num_adapted: int) -> Backbone:
    """A timm ViT by name, with the weights of a pretrained tag (None: timm's default one) or "random" ones.

    The feature is the pooled, normalised token before any classifier.

    Raises:
        NestKALAError: unknown model or tag, not a plain ViT, or weights that are neither cached nor could be
            downloaded.
    """
    import timm

    if not timm.is_model(model) or "." in model:
        raise unknown_name("timm model (weights go behind a colon)", model, timm.list_models("vit_*"))
    tagged = model if weights in (None, "random") else f"{model}.{weights}"
    if weights != "random":
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
        if weights is not None and weights not in tags:
            raise unknown_name(f"weights of timm/{model}", weights, [*tags, "random"])
        if not tags:
            raise NestKALAError(f"timm has no weights for {model}: use timm/{model}:random, or another model")
    try:
        with seeded(0):
            vit = timm.create_model(tagged, pretrained=weights != "random", num_classes=0)
    except Exception as error:
        if weights == "random":
            raise NestKALAError(f"timm/{model} cannot be built: {one_line(error)}") from error
        raise NestKALAError(
            f"the weights of {tagged} are neither cached nor could they be downloaded: fetch "
            f"{timm.get_pretrained_cfg(tagged).hf_hub_id} from the Hugging Face hub on a machine with a network and "
            f"copy it into the cache here (HF_HOME) ({one_line(error)})"
        ) from error
    if type(vit) is not timm.models.vision_transformer.VisionTransformer:
        raise NestKALAError(f"timm/{model} is a {type(vit).__name__}, and only plain VisionTransformers can be cut")
    preprocessing = timm.data.resolve_model_data_config(vit)
    return Backbone(
        name=f"timm/{model}:{weights}" if weights else f"timm/{model}",
        tower=TimmTower(vit, num_adapted),
        preprocess=timm.data.create_transform(**preprocessing, is_training=False),
        preprocessing=json.dumps(preprocessing, sort_keys=True, default=list),
        embed_text=None,
    )


class TimmTower(Tower):
    """timm's VisionTransformer, ending in what its head gives (the pooled token where it has none)."""

    def __init__(self, vit: Any, num_adapted: int) -> None:
        super().__init__(
            vit,
            list(vit.blocks),
            _adaptable,
            width=vit.embed_dim,
            feature_dim=vit.num_classes or vit.num_features,
            num_prefix_tokens=vit.num_prefix_tokens,
            num_adapted=num_adapted,
        )

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.vit._pos_embed(self.vit.patch_embed(images))
        return self.vit.norm_pre(self.vit.patch_drop(tokens))

    def pool(self, tokens: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(tokens))


def _adaptable(block: Any) -> AdaptableBlock:
    from timm.layers import Attention
    from timm.models.vision_transformer import Block

    attention: Any = block.attn if type(block) is Block else None
    if type(attention) is not Attention or attention.gate is not None:
        raise NestKALAError(
            f"the backbone's {type(block).__name__} with {type(getattr(block, 'attn', None)).__name__} cannot be "
            "adapted: only timm's plain Block with Attention can"
        )
    return AdaptableBlock(
        norm1=block.norm1,
        qkv=attention.qkv,
        num_heads=attention.num_heads,
        q_norm=attention.q_norm,
        k_norm=attention.k_norm,
        inner_norm=attention.norm,
        out=attention.proj,
        scale1=block.ls1,
        norm2=block.norm2,
        mlp=block.mlp,
        scale2=block.ls2,
    )
