"""What a run prints before it starts."""

from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ...data import ImageDataset
from ...data.class_names import names_in_doubt
from ...data.splits import Split
from ...settings.config import Config
from ...settings.groups import DataSettings
from ..anchors import alike_in_words


def announce(
    config: Config,
    dataset: ImageDataset,
    split: Split,
    anchors: Tensor,
    broken: Sequence[str],
    accelerator: Accelerator,
) -> None:
    """Print the number of images, the device, and notes that a user should know."""
    data = "class names alone" if config.data == "none" else config.data
    archive = "" if split.archive is None else f", {len(split.archive)} without labels in the archive {config.archive}"
    print(
        f"{data}: {len(split.train)} training images of {len(dataset.class_names)} classes, "
        f"{len(split.query)} queries, {len(split.gallery)} in the gallery{archive}; "
        f"{accelerator.num_processes} process(es) on {accelerator.device.type}, {torch.get_num_threads()} threads each"
    )
    for line in dataset.notes:
        print(line)
    if config.has_texts and config.descriptions is None:
        for line in names_in_doubt([config.class_words.get(name, name) for name in dataset.class_names]):
            print(line)
    if config.backbone.endswith(":random"):
        print("note: the backbone has random weights: this tests that everything runs, not the quality of the codes")
    if config.anchors == "orthonormal":
        print("note: the text anchors are random orthonormal directions, which say nothing about the classes")
    if broken:
        print(left_out(broken, ""))
    _note_short_classes(config, dataset.targets[split.train].sum(axis=0))
    for line in alike_in_words(anchors, dataset.class_names):
        print(line)


def left_out(broken: Sequence[str], where: str) -> str:
    """A warning that these images (at least one) are skipped."""
    return f"warning: skipped {len(broken)} unreadable images {where}".rstrip() + f", the first is {broken[0]!r}"


def _note_short_classes(settings: DataSettings, counts: np.ndarray) -> None:
    shots = settings.labels_per_class
    if settings.split is not None or not shots:
        return
    wanted, why = (
        (1, "") if shots == "all" else (shots, ", because labels are shared" if settings.archive is None else "")
    )
    if short := int((counts < wanted).sum()):
        print(f"note: {short} of {len(counts)} classes have fewer than {wanted} training images{why}")
