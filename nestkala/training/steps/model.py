"""The model that a run trains: its towers, its initial weights, and its start."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from ...backbones import Backbone, load_backbone
from ...data import ImageDataset
from ...data.splits import Split
from ...modeling.model import HashModel
from ...modeling.saved_model import ModelSpec
from ...settings.config import Config
from ...tokens.source import TokenSource
from ...utils.seeding import seeded
from ..anchors import class_anchors, text_center
from ..closed_form import Start, closed_form
from .announcement import left_out
from .tokens import unlabeled_batches


def load_towers(
    config: Config, class_names: tuple[str, ...], accelerator: Accelerator
) -> tuple[Backbone, Tensor, Tensor | None]:
    """The backbone, the classes' anchors (C, d_t), and the text center (d_t,) if the start uses it."""
    with accelerator.local_main_process_first():  # which may download
        backbone = load_backbone(config.backbone, config.num_adapted)
        anchors = class_anchors(config, backbone, class_names, seed=config.seed)
        center = text_center(config, backbone) if config.has_texts else None
    return backbone, anchors, center


def new_model(config: Config, spec: ModelSpec, backbone: Backbone, anchors: Tensor, device: torch.device) -> HashModel:
    """The model with random weights, drawn with the run's seed."""
    with seeded(config.seed):
        model = spec.build(backbone.tower, anchors).to(device)
    return model.double() if config.precision == "fp64" else model


def find_start(
    config: Config,
    model: HashModel,
    source: TokenSource,
    dataset: ImageDataset,
    split: Split,
    labeled: Sequence[Tensor],
    targets: Tensor,
    center: Tensor | None,
    show: bool,
) -> tuple[Start | None, list[int]]:
    """The closed-form start, if the settings ask for one, and unreadable images of the archive.

    Args:
        config: settings of the run.
        model: from `new_model`; not modified.
        source: source of tokens.
        dataset: data set of the images.
        split: says which images are unlabeled.
        labeled: tokens of the training images, in batches.
        targets: their multi-hot labels (N, C).
        center: text center from `load_towers`.
        show: whether to show a progress bar and report skipped images.
    """
    if not config.starts_in_closed_form:
        return None, []
    broken: list[int] = []
    unlabeled = unlabeled_batches(source, dataset, split, config.unlabeled, broken, show)
    start = closed_form(
        model,
        unlabeled,
        labeled,
        targets,
        config,
        seed=config.seed,
        has_texts=config.has_texts,
        text_center=center,
    )
    if show and broken:
        print(left_out([dataset.names[index] for index in broken], "of the archive"))
    return start, broken
