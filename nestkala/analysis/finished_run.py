"""The codes of a finished run for its own queries and gallery, and their scores at any length."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codes import columns, pack
from ..data import ImageDataset, load_dataset, with_archive
from ..data.splits import Split, load_split
from ..evaluation import Metrics
from ..evaluation.baselines import chance_level
from ..evaluation.collapse import Collapse
from ..evaluation.copies import CopyRecall, NearCopies, draw_originals, score_copies
from ..evaluation.lengths import score_lengths
from ..evaluation.relevance import bootstrap_interval
from ..hasher import Hasher, nearest_classes
from ..modeling.image_codes import packed_codes, relaxed_codes
from ..settings.config import Config
from ..settings.loading import load_config
from ..training.metrics_file import load_metrics
from ..training.steps.tokens import token_source
from ..utils.errors import NestKALAError

logger = logging.getLogger(__name__)
Labels = NDArray[np.bool_]
_PLACES = 100
"""N in precision@N."""


@dataclass(frozen=True, eq=False)
class RunCodes:
    """Codes with all the head's outputs; L is its width.

    Attributes:
        config: the run's settings.
        hasher: the run's model.
        relaxed: relaxed codes of the queries, (Q, L).
        query_labels: multi-hot (Q, C).
        gallery: packed codes, uint8 (G, ceil(L / 8)).
        gallery_labels: multi-hot (G, C).
        originals: gallery positions of the M images that near copies are made from (`draw_originals`), (M,).
        copies: packed codes of the near copies, uint8 (M, ceil(L / 8)).
    """

    config: Config
    hasher: Hasher
    relaxed: Tensor
    query_labels: Labels
    gallery: NDArray[np.uint8]
    gallery_labels: Labels
    originals: NDArray[np.int64]
    copies: NDArray[np.uint8]

    @property
    def queries(self) -> NDArray[np.uint8]:
        """Packed codes of the queries, uint8 (Q, ceil(L / 8))."""
        return pack(self.relaxed)

    @property
    def chance(self) -> float:
        """The share of the gallery that is relevant, mean over the queries: about the mAP of random codes."""
        return chance_level(self.query_labels, self.gallery_labels)

    @property
    def asked(self) -> str:
        """Context for reading the scores, as text."""
        return (
            f"chance level of the mAP: {self.chance:.4f} ({len(self.query_labels):,} queries, "
            f"{len(self.gallery):,} images searched)"
        )

    def collapse(self, bits: int) -> Collapse:
        """Signs of collapse in the gallery's codes of this length."""
        return Collapse.of(columns(self.gallery, self.hasher.columns(bits)), bits)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run folder's settings and model; `encode` gives its codes.

    Attributes:
        folder: the run folder.
        config: settings of the run.
        hasher: model of the run.
    """

    folder: Path
    config: Config
    hasher: Hasher

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run folder. Raises NestKALAError if it is not one, or is damaged."""
        if not (folder / "config.yaml").is_file():
            raise NestKALAError(f"{folder} is not a run folder: it contains no config.yaml")
        return cls(folder, load_config(str(folder / "config.yaml")), Hasher.from_pretrained(folder))

    @cached_property
    def data(self) -> tuple[ImageDataset, Split]:
        """Its data set and split. Raises NestKALAError if the data no longer exists."""
        config = self.config
        dataset = load_dataset(config.data, config.data_root, config.classes)
        if config.archive is not None:
            dataset = with_archive(dataset, config.archive)
        return dataset, load_split(self.folder / "split.json", dataset)

    def encode(self, progress: bool = False) -> RunCodes:
        """Encode its queries, its gallery and near copies of gallery images, using its data and the token cache.

        Shows progress bars with `progress`.

        Warns if training searched learned codes: here the gallery's codes come from the network.

        Raises:
            NestKALAError: if the data no longer exists, there are no queries, or metrics.json is damaged.
        """
        config, hasher = self.config, self.hasher
        metrics = load_metrics(self.folder)
        if metrics is not None and metrics.searched == "learned codes":
            logger.warning("%s searched learned codes for the gallery; here they come from the network", self.folder)
        dataset, split = self.data
        if not len(split.query):
            raise NestKALAError(f"{self.folder} cannot be scored: it was trained without queries")
        source = token_source(config, hasher.spec, hasher.backbone, dataset)
        originals = draw_originals(dataset, split.gallery, config.protocol_seed)
        copied = split.gallery[originals].tolist()
        labels = {name: f"encoding {name}" if progress else None for name in ("queries", "gallery")}
        labels["copies"] = "encoding near copies" if progress and copied else None
        relaxed = relaxed_codes(hasher.model, source, dataset, split.query.tolist(), labels["queries"])
        return RunCodes(
            config,
            hasher,
            torch.cat(list(relaxed)),
            dataset.targets[split.query],
            packed_codes(hasher.model, source, dataset, split.gallery.tolist(), labels["gallery"]),
            dataset.targets[split.gallery],
            originals,
            packed_codes(hasher.model, source, NearCopies(dataset), copied, labels["copies"]),
        )


@dataclass(frozen=True)
class Scores:
    """Scores of codes of one length, each in [0, 1].

    Attributes:
        bits: the length.
        map: mean average precision, images searching images, ties in gallery order.
        map_tie_aware: its expectation over random order within ties.
        map_interval: 95 % interval of `map_tie_aware` over the queries (`bootstrap_interval`).
        copy_recall_at_1: share of near copies that find their original first (`CopyRecall`); None for features.
        copy_recall_at_10: share that find it among the first ten; None for features.
        precision_at_100: expected share of relevant images in the first 100 results; None for a smaller gallery.
        precision_within_2: share of relevant images among those within 2 bits; 0 for a query that finds none.
        ramap_at_2: radius-aware mean average precision up to 2 bits (`radius_aware_average_precision`).
        text_map_tie_aware: like map_tie_aware, with class names as queries; None for a model without text codes.
        accuracy: share of the queries for which `Hasher.classify` gives one of their classes; None for a model without
            text codes.
    """

    bits: int
    map: float
    map_tie_aware: float
    map_interval: tuple[float, float]
    copy_recall_at_1: float | None
    copy_recall_at_10: float | None
    precision_at_100: float | None
    precision_within_2: float
    ramap_at_2: float
    text_map_tie_aware: float | None = None
    accuracy: float | None = None


def score_images(codes: RunCodes, lengths: Sequence[int]) -> dict[int, Metrics]:
    """The metrics of a run's queries in its gallery, at lengths that its codes have."""
    return _score(codes, codes.queries, codes.query_labels, lengths)


def copies_found(codes: RunCodes, lengths: Sequence[int]) -> dict[int, CopyRecall]:
    """How often near copies of gallery images find their originals, at lengths that its codes have.

    Empty for a run without near copies.
    """
    if not len(codes.originals):
        return {}
    model = codes.hasher.model
    device = next(model.parameters()).device
    return score_copies(model.head, codes.copies, codes.gallery, codes.originals, lengths, device=device)


def score_run(
    codes: RunCodes, lengths: Sequence[int] | None = None, images: Mapping[int, Metrics] | None = None
) -> list[Scores]:
    """Score a run's codes.

    Args:
        codes: codes of the run.
        lengths: lengths to score, 1 to the longest; for heads that do not nest, trained ones. All trained by default.
        images: output of `score_images`, if already computed.

    Raises:
        NestKALAError: if the codes do not have a length.
    """
    hasher, model = codes.hasher, codes.hasher.model
    lengths = model.head.lengths if lengths is None else lengths
    where = {bits: hasher.columns(bits) for bits in lengths}
    images = score_images(codes, lengths) if images is None else images
    copies = copies_found(codes, lengths)
    scores = [_scores(bits, images[bits], copies.get(bits)) for bits in lengths]
    if not hasher.spec.has_text_codes:
        return scores
    with torch.no_grad():
        class_codes = pack(model.anchor_to_code(model.anchors))  # (C, ceil(L / 8))
    text = _score(codes, class_codes, np.eye(len(class_codes), dtype=bool), lengths)

    def accuracy(bits: int) -> float:
        best = nearest_classes(codes.relaxed[:, where[bits]].numpy(), columns(class_codes, where[bits]))
        return float(codes.query_labels[np.arange(len(best)), best].mean())

    return [replace(of, text_map_tie_aware=text[of.bits].map_tie_aware, accuracy=accuracy(of.bits)) for of in scores]


def _score(codes: RunCodes, queries: NDArray[np.uint8], labels: Labels, lengths: Sequence[int]) -> dict[int, Metrics]:
    model = codes.hasher.model
    gallery, device = (codes.gallery, codes.gallery_labels), next(model.parameters()).device
    return score_lengths(model.head, queries, labels, *gallery, lengths, codes.config.top_k, device=device)


def _scores(bits: int, found: Metrics, copies: CopyRecall | None) -> Scores:
    """Scores with images as queries."""
    return Scores(
        bits,
        found.map,
        found.map_tie_aware,
        bootstrap_interval(found.tie_aware_average_precision),
        None if copies is None else copies.at_1,
        None if copies is None else copies.at_10,
        float(found.counts.precision_at(_PLACES).mean()) if found.counts.counts[0].sum() >= _PLACES else None,
        float(found.counts.precision_within(2).mean()),
        float(found.counts.radius_aware_average_precision(2).mean()),
    )
