"""How well `nestkala search --relevant` tells what a collection has from what it has not.

    python scripts/relevance.py caltech101

FOLDER holds images in a folder per class. Half of the classes, drawn by a seed, make a collection, to which codes are
fitted without labels. Six images of each class are queries; so are the names of all classes that the vocabulary knows.
The limits of `nestkala.search.chance` were chosen on seeds 0 and 1; others are reported by default.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor
from tyro.conf import Positional

from nestkala.backbones import Backbone, load_backbone
from nestkala.backbones.tiny_text import PROMPT
from nestkala.codes import pack
from nestkala.images.given import GivenImages
from nestkala.images.listing import LeftOut, images_below
from nestkala.index import PrefixIndex
from nestkala.search.chance import Chance, chance_of_pairs, chance_of_query
from nestkala.search.fitted import codes_of, features_of, model_without_names
from nestkala.tokens.source import TokenSource
from nestkala.training.anchors import ALL_SORTS
from nestkala.training.closed_form import closed_form_of_kinds
from nestkala.utils.errors import NestKALAError

_QUERIES = 6


@dataclass(frozen=True)
class Scores:
    """Of one kind of queries, at one length.

    Attributes:
        precision: share of the results, to queries of classes that are there, that are of the query's class.
        recall: share of those of its class that are results.
        answered: share of the queries of classes that are there with any result.
        wrongly_answered: share of the queries of classes that are not there with any result.
    """

    precision: float
    recall: float
    answered: float
    wrongly_answered: float


def main(folder: Positional[Path], seeds: tuple[int, ...] = (2, 3, 4), bits: tuple[int, ...] = (32, 64, 128)) -> None:
    """Print precision and recall, as mean and deviation over the seeds.

    Args:
        folder: of images in a folder per class.
        seeds: that draw classes and queries.
        bits: prefix lengths to search at.
    """
    backbone = load_backbone("photo", num_adapted=0)
    names = [name for name, _ in images_below(folder, LeftOut())]
    images = GivenImages([folder / name for name in names])
    features = features_of(TokenSource(backbone, "fp32", 128, 0), images, [], "features")
    classes, labels = np.unique([name.split("/")[0] for name in names], return_inverse=True)
    measure(backbone, features, labels, list(classes), seeds, bits)


def measure(
    backbone: Backbone,
    features: Tensor,
    labels: NDArray[np.int64],
    classes: list[str],
    seeds: tuple[int, ...],
    bits: tuple[int, ...],
) -> None:
    """Print the table, from features (N, d) and labels (N,)."""
    known, texts = _text_directions(backbone, classes)
    rows = []
    found = [_of_seed(backbone, features, labels, known, texts, seed, bits) for seed in seeds]
    for kind, length in found[0]:
        each = [asdict(scores[kind, length]) for scores in found]
        cells = [[100 * scores[name] for scores in each] for name in each[0]]
        spread = [f"{mean(cell):.0f}" + (f" ± {stdev(cell):.0f}" if len(cell) > 1 else "") for cell in cells]
        rows.append((kind, length, *spread))
    headers = ("query", "bits", "precision", "recall", "answered", "wrongly answered")
    print(tabulate(rows, headers, "github", disable_numparse=True))


def _of_seed(
    backbone: Backbone,
    features: Tensor,
    labels: NDArray[np.int64],
    known: NDArray[np.int64],
    texts: Tensor,
    seed: int,
    lengths: tuple[int, ...],
) -> dict[tuple[str, int], Scores]:
    rng = np.random.default_rng(seed)
    classes = rng.permutation(labels.max() + 1)
    there = classes[: len(classes) // 2]
    drawn = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:_QUERIES] for label in classes])
    is_query = np.isin(np.arange(len(labels)), drawn)
    gallery = np.flatnonzero(np.isin(labels, there) & ~is_query)
    _, model = model_without_names(backbone)
    closed_form_of_kinds(model, features[gallery], torch.Generator().manual_seed(seed))
    assert model.class_layer is not None
    with torch.no_grad():
        sentences = pack(model.head(model.class_layer.towards(texts.to(model.class_layer.mean))))
    index = PrefixIndex.build(codes_of(model, features[gallery]), map(str, gallery))
    queries = codes_of(model, features[drawn])
    found = {}
    for length in lengths:
        pairs = chance_of_pairs(index, length)
        found["image", length] = _scores(index, labels, there, queries, labels[drawn], [pairs] * len(drawn), length)
        each = [chance_of_query(index, code[None], length) for code in sentences]
        found["name", length] = _scores(index, labels, there, sentences, known, each, length)
    return found


def _scores(
    index: PrefixIndex,
    labels: NDArray[np.int64],
    there: NDArray[np.int64],
    queries: NDArray[np.uint8],
    of: NDArray[np.int64],
    chances: list[Chance],
    bits: int,
) -> Scores:
    hits = index.search(queries, len(index), bits)
    kept = np.array([chance.is_relevant(row) for chance, row in zip(chances, hits.distances, strict=True)])
    right = labels[np.array(hits.ids, int)] == of[:, None]
    is_there = np.isin(of, there)
    kept_there, right_there = kept[is_there], right[is_there]
    return Scores(
        precision=float((kept_there & right_there).sum() / max(1, kept_there.sum())),
        recall=float((kept_there & right_there).sum() / right_there.sum()),
        answered=float(kept_there.any(axis=1).mean()),
        wrongly_answered=float(kept[~is_there].any(axis=1).mean()),
    )


def _text_directions(backbone: Backbone, classes: list[str]) -> tuple[NDArray[np.int64], Tensor]:
    """Which classes the vocabulary knows, and where their names point."""
    assert backbone.embed_text is not None
    center = backbone.embed_text([PROMPT.format(name) for name in ALL_SORTS]).mean(dim=0)
    known, texts = [], []
    for label, name in enumerate(classes):
        try:
            texts.append(backbone.embed_text([PROMPT.format(name.replace("_", " ").lower())])[0])
            known.append(label)
        except NestKALAError:
            continue
    return np.array(known), torch.stack(texts) - center


if __name__ == "__main__":
    tyro.cli(main)
