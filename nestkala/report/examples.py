"""Example queries and their results, as thumbnails."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..analysis.finished_run import FinishedRun, RunCodes
from ..codes import columns, hamming
from ..data import FeatureDataset, ImageDataset
from ..images.decoding import data_url, thumbnail
from ..utils.errors import NestKALAError
from .measurements import first_labels

QUERIES = 6
RESULTS = 8
LENGTHS = (8, 16, 32)
"""Bits; the longest code comes after them."""
_SIZE = 144


@dataclass(frozen=True)
class Picture:
    """An image as the page shows it.

    Attributes:
        image: a data URL.
        label: names of its classes.
        distance: distance to the query, in bits; 0 for the query itself.
        relevant: whether it shares a class with the query.
    """

    image: str
    label: str
    distance: int = 0
    relevant: bool = True


@dataclass(frozen=True)
class Example:
    """A query and the first results for each kind of code: {name of the code: results, nearest first}."""

    query: Picture
    found: dict[str, list[Picture]]


def has_images(run: FinishedRun) -> bool:
    """Whether there is anything to show."""
    return not isinstance(run.data[0], FeatureDataset)


def nearest_lengths(run: FinishedRun) -> list[int]:
    """The lengths of the run's codes that are nearest to 8, 16 and 32 bits, and the longest, ascending."""
    head = run.hasher.model.head
    lengths = range(1, max(head.lengths) + 1) if head.nested else head.lengths
    return sorted({min(lengths, key=lambda length: abs(length - wanted)) for wanted in (*LENGTHS, max(lengths))})


def find_examples(codes: Sequence[tuple[str, FinishedRun, RunCodes, int]], seed: int = 0) -> Iterator[Example]:
    """Queries, one per class if there are enough classes, with results at some length. Ties are in gallery order.

    Args:
        codes: name, run, codes and length to compare; all with the same queries and gallery.
        seed: seed for drawing the queries.
    """
    _, run, one, _ = codes[0]
    dataset, split = run.data
    for query in _chosen(one, seed):
        relevant = (one.gallery_labels & one.query_labels[query]).any(axis=1)  # (G,)
        found = {}
        for name, other, theirs, bits in codes:
            where = other.hasher.columns(bits)
            asked, gallery = columns(theirs.queries[query : query + 1], where), columns(theirs.gallery, where)
            distances = hamming(asked, gallery)[0]
            first = np.argsort(distances, kind="stable")[:RESULTS]
            found[name] = [
                _picture(dataset, int(split.gallery[place]), int(distances[place]), bool(relevant[place]))
                for place in first
            ]
        yield Example(_picture(dataset, int(split.query[query])), found)


def _chosen(codes: RunCodes, seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(len(codes.query_labels))
    _, first = np.unique(first_labels(codes.query_labels[order]), return_index=True)
    return order[np.sort(first)][:QUERIES].tolist()


def _picture(dataset: ImageDataset, index: int, distance: int = 0, relevant: bool = True) -> Picture:
    try:
        jpeg = thumbnail(dataset.read(index), _SIZE)
    except NestKALAError:
        jpeg = None
    label = ", ".join(name for name, has in zip(dataset.class_names, dataset.targets[index], strict=True) if has)
    return Picture(data_url(jpeg), label, distance, relevant)
