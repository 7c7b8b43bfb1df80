"""open_clip's standard ViT towers, with text towers for anchors."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.errors import NestKALAError, one_line, unknown_name
from ..utils.seeding import seeded
from .contract import Backbone
from .tower import AdaptableBlock, Tower

logger = logging.getLogger(__name__)


def load(model: str, weights: str | None, num_adapted: int) -> Backbone:
    """An open_clip model by name, with the weights of a pretrained tag, a file, or "random" ones.

    A file gets OpenAI's preprocessing, unless the model is given as "MODEL/TAG": then it gets the tag's.

    Raises:
        NestKALAError: if the model is not a standard ViT, the tag is unknown, the weights need another activation, or
            the weights are neither cached nor downloadable; says what is allowed or what to download.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    name = f"open_clip/{model}:{weights}"
    model, _, tag = model.partition("/")
    clip = _create(model, weights, tag)
    visual = clip.visual
    preprocessing = dict(open_clip.get_model_preprocess_cfg(clip))
    return Backbone(
        name=name,
        tower=OpenCLIPTower(visual, num_adapted),
        preprocess=image_transform_v2(PreprocessCfg(**preprocessing), is_train=False),
        preprocessing=json.dumps(preprocessing, sort_keys=True, default=list),
        embed_text=_TextTower(clip, open_clip.get_tokenizer(model)),
    )


def _create(model: str, weights: str | None, tag_of_file: str) -> Any:
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if weights == "random":
        with seeded(0), _quiet():
            return open_clip.create_model(model, pretrained=None, pretrained_text=False).eval()
    tags = list_pretrained_tags_by_model(model)
    if weights is None:
        raise NestKALAError(
            f"open_clip/{model} needs weights after a colon: a tag ({', '.join(tags) or 'none known'}), "
            "a file, or random"
        )
    if tag_of_file:
        return _create_from_file(model, weights, tag_of_file, tags)
    tag = get_pretrained_cfg(model, weights)
    if not tag and not Path(weights).is_file():
        raise unknown_name(f"weights of open_clip/{model}", weights, [*tags, "random", "a file's path"])
    if tag:
        _check_activation(model, weights, bool(tag.get("quick_gelu")))
    if not tag:
        _note_preprocessing(model, weights, tags)
        return _loaded(model, weights)
    try:
        with _quiet():
            return open_clip.create_model(model, pretrained=weights).eval()
    except Exception as error:
        source = tag.get("hf_hub", "").rstrip("/") or tag.get("url")
        raise NestKALAError(
            f"the weights of open_clip/{model}:{weights} are not cached and could not be downloaded: "
            f"download {source} on a machine with a network and copy it into the Hugging Face cache here "
            f"(HF_HOME), or give its file: --backbone open_clip/{model}/{weights}:/path/to/weights.safetensors "
            f"({one_line(error)})"
        ) from error


def _create_from_file(model: str, file: str, tag: str, tags: list[str]) -> Any:
    from open_clip.pretrained import get_pretrained_cfg

    settings = get_pretrained_cfg(model, tag)
    if not settings:
        raise unknown_name(f"tag of open_clip/{model}", tag, tags)
    if not Path(file).is_file():
        raise NestKALAError(f"open_clip/{model}/{tag}: there is no file {file}")
    _check_activation(model, tag, bool(settings.get("quick_gelu")), file)
    return _loaded(model, file, {key: value for key, value in settings.items() if key != "size"})  # the model's own


def _note_preprocessing(model: str, file: str, tags: list[str]) -> None:
    """Warn if some weights of this model use other preprocessing than OpenAI's, which a bare file gets."""
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    usual = merge_preprocess_dict(PreprocessCfg(), {})
    others = [tag for tag in tags if merge_preprocess_dict(usual, get_pretrained_cfg(model, tag)) != usual]
    if others:
        logger.warning(
            "%s gets OpenAI's preprocessing; if it contains the weights of %s, use --backbone open_clip/%s/TAG:%s",
            file,
            " or ".join(others),
            model,
            file,
        )


def _loaded(model: str, weights: str, preprocessing: dict[str, Any] | None = None) -> Any:
    """The model with weights from a file, and a tag's preprocessing."""
    import open_clip

    try:
        with _quiet():
            return open_clip.create_model(model, pretrained=weights, force_preprocess_cfg=preprocessing).eval()
    except Exception as error:
        reason = shorten(one_line(error).partition(". ")[0], 200)  # torch's next sentence gives unsafe advice
        raise NestKALAError(
            f"{weights} does not contain weights of open_clip/{model} as plain safetensors or torch tensors:   {reason}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence logs of open_clip and the hub before an error that is reported here in one line."""
    loggers = [logging.getLogger(), logging.getLogger("huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_activation(model: str, tag: str, tag_is_quick: bool, file: str | None = None) -> None:
    import open_clip

    if tag_is_quick == bool(open_clip.get_model_config(model).get("quick_gelu")):
        return
    fitting = f"{model}-quickgelu" if tag_is_quick else model.removesuffix("-quickgelu")
    raise NestKALAError(
        f"the weights '{tag}' were trained {'with' if tag_is_quick else 'without'} QuickGELU: "
        f"use open_clip/{fitting}{f':{tag}' if file is None else f'/{tag}:{file}'}"
    )


class _TextTower:
    """Sentences -> embeddings, not normalized."""

    def __init__(self, clip: Any, tokenizer: Any) -> None:
        self.clip, self.tokenizer = clip, tokenizer

    @torch.no_grad()
    def __call__(self, sentences: list[str]) -> Tensor:
        return self.clip.encode_text(self.tokenizer(sentences)).float()  # (n, d_t)


class OpenCLIPTower(Tower):
    """open_clip's VisionTransformer, ending in its projected embedding, not normalized."""

    def __init__(self, visual: Any, num_adapted: int) -> None:
        super().__init__(
            visual,
            list(visual.transformer.resblocks),
            _adaptable,
            width=visual.conv1.out_channels,
            feature_dim=visual.output_dim,
            num_prefix_tokens=1,
            num_adapted=num_adapted,
        )

    def embed(self, images: Tensor) -> Tensor:
        return self.vit._embeds(images)

    def pool(self, tokens: Tensor) -> Tensor:
        return self.vit._pool(tokens)[0] @ self.vit.proj


class _PackedProjection(nn.Module):
    """The input projection that nn.MultiheadAttention keeps as one packed weight; shared, not copied."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias)


def _adaptable(block: Any) -> AdaptableBlock:
    return AdaptableBlock(
        norm1=block.ln_1,
        qkv=_PackedProjection(block.attn),
        num_heads=block.attn.num_heads,
        q_norm=nn.Identity(),
        k_norm=nn.Identity(),
        inner_norm=nn.Identity(),
        out=block.attn.out_proj,
        scale1=block.ls_1,
        norm2=block.ln_2,
        mlp=block.mlp,
        scale2=block.ls_2,
    )
