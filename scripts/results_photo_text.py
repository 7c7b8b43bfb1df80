"""How well the text side of `photo` knows classes of ImageNet-1k that were left out of its regression.

    python scripts/results_photo_text.py

A fifth of the classes at a time; each left-out class's row of the classifier, which stands for an image, is compared
with the directions of the "a photo of a NAME." of all that were left out. No image is needed.
"""

from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from timm.data import ImageNetInfo
from torch import Tensor

from nestkala.backbones.photo import WEIGHTS, load_network
from nestkala.backbones.photo_text import Names, load_names, regress
from nestkala.backbones.tiny_text import PROMPT, embed_text

FOLDS = 5
BLOCK = 25
"""Neighbors in ImageNet's order are relatives: left out together, they leave no near relative to learn from."""


def without(names: Names, left_out: Tensor) -> Names:
    """The names without some classes (mask) and without the groups of nothing else."""
    members = names.members[:, ~left_out]
    kept = members.sum(dim=1) > 0
    return Names(names.embeddings[kept], members[kept])


def ranks(rows: Tensor, folds: Tensor) -> Tensor:
    """For each class its own direction's place (from 1) for its row, folds (1000) saying what is left out together."""
    names = load_names()
    usual = [line.split(",")[0] for line in ImageNetInfo("imagenet-1k").label_descriptions()]
    texts = embed_text([PROMPT.format(name) for name in usual])
    places = torch.empty(len(rows))
    for fold in folds.unique():
        left_out = folds == fold
        directions = regress(without(names, left_out), rows[~left_out])(texts[left_out])
        images = rows[left_out] - rows[~left_out].mean(dim=0)
        products = images @ F.normalize(directions - directions.mean(dim=0), dim=1).T
        places[left_out] = 1.0 + (products > products.diagonal()[:, None]).sum(dim=1)
    return places


def main(weights: Literal["lite2"] | None = None) -> None:
    """Print accuracy and mean reciprocal rank, classes left out at random and in blocks of relatives.

    Args:
        weights: as in the name of the backbone, photo:lite2; by default those of photo.
    """
    rows = load_network(WEIGHTS[weights]).classifier.get_parameter("weight").detach()
    scattered = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % FOLDS
    blocks = torch.arange(len(rows)) // BLOCK % FOLDS
    for called, folds in (("at random", scattered), (f"in blocks of {BLOCK}", blocks)):
        places = ranks(rows, folds)
        accuracy, reciprocal = 100 * (places == 1).float().mean(), 100 * places.reciprocal().mean()
        print(
            f"left out {called}: {accuracy:.1f} % right of {len(rows) // FOLDS}, mean reciprocal rank {reciprocal:.1f}"
        )


if __name__ == "__main__":
    tyro.cli(main)
