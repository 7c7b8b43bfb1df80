"""timm's models. They have no text tower, so anchors come from open_clip or from a file."""

import json
from typing import Any

import torch
from torch import Tensor

from ..utils.errors import NestKALAError, one_line, unknown_name
from ..utils.seeding import seeded
from .contract import Backbone
from .tower import AdaptableBlock, FixedTower, Tower


def load(model: str, weights: str | None, num_adapted: int) -> Backbone:
    """A timm model by name, with the weights of a pretrained tag (None for timm's default) or "random" ones.

    The feature is its output without the classifier: one pooled vector per image. Plain ViTs can be adapted.

    Raises:
        NestKALAError: if the model or tag is unknown, it has no such feature, it is adapted but not a plain ViT, or
            weights are neither cached nor downloadable.
    """
    import timm

    if not timm.is_model(model) or "." in model:
        raise unknown_name("timm model (weights go after a colon)", model, timm.list_models())
    tagged = model if weights in (None, "random") else f"{model}.{weights}"
    if weights != "random":
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
        if weights is not None and weights not in tags:
            raise unknown_name(f"weights of timm/{model}", weights, [*tags, "random"])
        if not tags:
            raise NestKALAError(f"timm has no weights for {model}: use timm/{model}:random, or another model")
    try:
        with seeded(0):
            network = timm.create_model(tagged, pretrained=weights != "random", num_classes=0)
    except Exception as error:
        if weights == "random":
            raise NestKALAError(f"timm/{model} cannot be built: {one_line(error)}") from error
        raise NestKALAError(
            f"the weights of {tagged} are not cached and could not be downloaded: download "
            f"{timm.get_pretrained_cfg(tagged).hf_hub_id} from the Hugging Face hub on a machine with a network and "
            f"copy it into the cache here (HF_HOME) ({one_line(error)})"
        ) from error
    preprocessing = timm.data.resolve_model_data_config(network)
    tower: Tower
    if type(network) is timm.models.vision_transformer.VisionTransformer:
        tower = TimmTower(network, num_adapted)
    elif num_adapted:
        raise NestKALAError(
            f"timm/{model} is a {type(network).__name__}, but only plain VisionTransformers can be adapted: "
            "use --adapter none"
        )
    else:
        tower = PooledTower(network.eval(), _feature_dim(network, preprocessing["input_size"], f"timm/{model}"))
    return Backbone(
        name=f"timm/{model}:{weights}" if weights else f"timm/{model}",
        tower=tower,
        preprocess=timm.data.create_transform(**preprocessing, is_training=False),
        preprocessing=json.dumps(preprocessing, sort_keys=True, default=list),
        embed_text=None,
    )


class PooledTower(FixedTower):
    """Any network that maps images to one vector each; no part of it can be adapted."""

    def embed(self, images: Tensor) -> Tensor:
        return self.vit(images)


@torch.no_grad()
def _feature_dim(network: Any, input_size: tuple[int, int, int], name: str) -> int:
    try:
        features = network(torch.zeros(2, *input_size))
    except Exception as error:  # architectures may have other requirements
        raise NestKALAError(f"{name} cannot encode images of {input_size}: {one_line(error)}") from error
    shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
    if not isinstance(shape, tuple) or len(shape) != 2 or shape[0] != 2:
        raise NestKALAError(f"{name} returns {shape} for 2 images, not one feature per image")
    return shape[1]


class TimmTower(Tower):
    """timm's VisionTransformer up to the output of its head (the pooled token if it has none)."""

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
