"""Class names among the features of a classifier of ImageNet: a text side in closed form.

A row of the classifier is the direction that images of its class have in common. A ridge regression takes the sentence
embeddings of the 1,000 class names to those rows, and so any other name to a direction.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .shipped import FOLDER
from .tiny_text import PROMPT, embed_text

RIDGE = 1.0


def text_embedder(classifier: Tensor) -> Callable[[list[str]], Tensor]:
    """Sentences -> directions (n, d) among the features, float32, of whatever norm; 0 is the mean of ImageNet's names.

    Args:
        classifier: (1000, d), the rows that a network scores its features by, in ImageNet-1k's order.
    """
    names = (FOLDER / "imagenet_names.txt").read_text(encoding="utf-8").splitlines()
    known = embed_text([PROMPT.format(name) for name in names])
    mean = known.mean(dim=0)
    x, y = known - mean, classifier - classifier.mean(dim=0)
    to_features = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ y)
    return partial(_embed, mean, to_features)


def _embed(mean: Tensor, to_features: Tensor, sentences: list[str]) -> Tensor:
    return (embed_text(sentences) - mean) @ to_features
