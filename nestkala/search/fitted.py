"""A model for a folder of images without labels or names: its codes are fitted to the folder itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones import Backbone, load_backbone
from ..backbones.shipped import load_shipped
from ..codes import pack
from ..heads import NestedHashHead
from ..images.given import GivenImages
from ..modeling.class_layer import ClassLayer
from ..modeling.model import HashModel
from ..modeling.saved_model import ModelSpec, save_model
from ..runtimes.choice import set_backend
from ..tokens.source import TokenSource
from ..training.closed_form import closed_form_of_kinds, replace_layers
from ..utils.errors import NestKALAError
from ..utils.seeding import seeded
from .places import ImageFolders

SAMPLE = 8000
"""Maximum number of images a model is fitted to; larger folders are sampled."""

FEWEST = 32
"""With fewer images, the built-in codes are better than fitted ones."""

START = "photo_start.safetensors"
START_SHA256 = "9e8b825d578f67a9faa083d60af488b365b4b5938603f0f72016d503d2cabf83"

_BACKBONE = "photo"
_LENGTHS = (4, 8, 16, 32, 64, 128)
_BATCH = 128


@dataclass(frozen=True, eq=False)
class Fitted:
    """The images that a model was fitted to.

    Attributes:
        names: names of the images.
        codes: their packed codes, uint8 (n, 16).
        is_own: whether the codes are fitted to the images; False if they are the built-in ones.
    """

    names: list[str]
    codes: NDArray[np.uint8]
    is_own: bool


def fit_to_folder(
    folder: Path | ImageFolders,
    names: Sequence[str],
    output: Path,
    workers: int = 0,
    progress: bool = False,
    seed: int = 0,
    backend: str = "torch",
) -> Fitted:
    """Fit a model to the images of one or more folders, without labels or class names, and save it.

    Codes cannot be learned from fewer than 32 images, or from images that are all the same: these get the built-in
    codes, which were fitted to Caltech-101.

    Args:
        folder: folder or folders of images.
        names: names of all images, as in `ImageFolders`.
        output: folder to write model.json and model.safetensors to.
        workers: number of decoding threads; 0 decodes in the calling thread.
        progress: show a progress bar.
        seed: seed for the sample and everything else that is random.
        backend: as for `Hasher.from_pretrained`.

    Raises:
        NestKALAError: the backbone's weights are unavailable, or the backend cannot run it.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(names), generator=generator)[:SAMPLE].sort().values.tolist()
    chosen = [names[place] for place in drawn]
    files = ImageFolders.of(folder)
    images = GivenImages([files.file(name) or "" for name in chosen])
    backbone = load_backbone(_BACKBONE, num_adapted=0)
    spec, model = model_without_names(backbone)
    set_shipped(model)  # so that "auto" has codes to compare
    set_backend(backend, spec, backbone, model, START_SHA256)
    source = TokenSource(backbone, "fp32", max(1, min(_BATCH, len(drawn))), workers)
    broken: list[int] = []
    label = "fitting codes" if progress else None
    found = features_of(source, images, broken, label)
    is_own = len(found) >= FEWEST
    if is_own:
        try:
            closed_form_of_kinds(model, found, generator)
        except NestKALAError:  # all images are the same
            is_own = False
    if not is_own:
        set_shipped(model)
    save_without_names(output, spec, model)
    unread = set(broken)
    readable = [name for place, name in enumerate(chosen) if place not in unread]
    return Fitted(readable, codes_of(model, found), is_own)


@torch.no_grad()
def features_of(source: TokenSource, images: GivenImages, broken: list[int], progress: str | None = None) -> Tensor:
    """The backbone's features (n, d) of images; positions of unreadable images are added to `broken`."""
    tower = source.backbone.tower
    batches = source.batches(images, range(len(images)), progress, broken)
    return torch.cat([torch.empty(0, tower.feature_dim), *(tower.tail(tokens.float()) for tokens in batches)])


def model_without_names(backbone: Backbone) -> tuple[ModelSpec, HashModel]:
    """A model without classes on this backbone, to be filled by `closed_form_of_kinds`."""
    spec = ModelSpec(
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        precision="fp32",
        class_names=(),
        text_tower=backbone.name,
        has_text_codes=True,
        lengths=_LENGTHS,
        batch_norm=False,
        class_layer=True,
        adapter="none",
        adapt_blocks=1,
        projections=backbone.tower.projections,
        rank=1,
        adapter_scale=1.0,
        adapter_init="linear",
    )
    with seeded(0):  # random weights are overwritten
        return spec, spec.build(backbone.tower, torch.zeros(0, backbone.tower.feature_dim))


def save_without_names(output: Path, spec: ModelSpec, model: HashModel) -> None:
    """Save a model whose layers have been set."""
    assert model.class_layer is not None
    save_model(output, spec.with_unnamed(len(model.class_layer.prototypes)), model.trained_state())


@torch.no_grad()
def codes_of(model: HashModel, features: Tensor) -> NDArray[np.uint8]:
    """Packed codes, uint8 (n, 16), of features (n, d)."""
    assert model.class_layer is not None
    return pack(model.head(model.class_layer(features)))


@torch.no_grad()
def set_shipped(model: HashModel) -> None:
    """Give a model without classes the built-in layers. They have fewer directions; the others get weight 0.

    Raises:
        NestKALAError: the file is missing or has been altered.
    """
    tensors, _ = load_shipped(START, START_SHA256)
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    kept = tensors["basis"].shape[1]
    layer = ClassLayer(model.tower.feature_dim, len(tensors["prototypes"]))
    layer.mean.copy_(tensors["mean"])
    layer.basis.zero_()[:, :kept] = tensors["basis"]
    layer.whitening.copy_(torch.eye(layer.width))[:kept, :kept] = tensors["whitening"]
    layer.prototypes.zero_()[:, :kept] = tensors["prototypes"]
    weight = torch.zeros(len(tensors["bias"]), layer.out_features)
    weight[:, :kept] = tensors["weight"][:, :kept]
    weight[:, layer.width :] = tensors["weight"][:, kept:]
    replace_layers(model, layer, (weight, tensors["bias"]))


def shipped_tensors(head: NestedHashHead, layer: ClassLayer, kept: int) -> dict[str, Tensor]:
    """The half-precision tensors that `set_shipped` reads, from layers with at most `kept` feature directions."""
    state = layer.state_dict()
    weight = head.linear.weight
    width = state["basis"].shape[1]
    tensors = {
        "mean": state["mean"],
        "basis": state["basis"][:, :kept],
        "whitening": state["whitening"][:kept, :kept],
        "prototypes": state["prototypes"][:, :kept],
        "weight": torch.cat([weight[:, :kept], weight[:, width:]], dim=1),
        "bias": head.linear.bias,
    }
    return {name: tensor.detach().half().contiguous() for name, tensor in tensors.items()}
