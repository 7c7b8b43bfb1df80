"""The scores of a run."""

import numpy as np
import torch

from ...codes import columns, unpack
from ...data import ImageDataset
from ...data.splits import Split
from ...evaluation.baselines import chance_level, features_map
from ...evaluation.collapse import Collapse
from ...evaluation.copies import NearCopies, draw_originals, score_copies
from ...evaluation.lengths import score_lengths
from ...settings.groups import DataSettings
from ..metrics_file import RunMetrics
from .trained_model import TrainedModel


def score(
    settings: DataSettings,
    trained: TrainedModel,
    dataset: ImageDataset,
    split: Split,
    learned: dict[int, np.ndarray] | None,
) -> RunMetrics:
    """Quality of the codes at every length, for queries and near copies; complete on the main process only.

    Args:
        settings: evaluation settings.
        trained: the trained model, present in every process.
        dataset: data set of the images.
        split: says which images are queries and which are searched.
        learned: gallery codes that the loss learned (`learned_codes`), searched instead of the network's.
    """
    metrics = RunMetrics(searched="learned codes" if learned else RunMetrics.searched)
    accelerator, head = trained.accelerator, trained.model.head
    train = trained.codes(dataset, split.train, "training images")
    queries = trained.codes(dataset, split.query, "queries")
    gallery = learned or trained.codes(dataset, split.gallery, "gallery")
    if len(split.query):
        labels, gallery_labels = dataset.targets[split.query], dataset.targets[split.gallery]
        scores = score_lengths(
            head,
            queries,
            labels,
            gallery,
            gallery_labels,
            top_k=settings.top_k,
            device=accelerator.device,
            accelerator=accelerator,
        )
        metrics.lengths = {str(bits): of_length.scores for bits, of_length in scores.items()}
        metrics.chance = chance_level(labels, gallery_labels)
        if settings.score_features:
            asked, searched = (
                torch.from_numpy(trained.frozen_features(dataset, part)) for part in (split.query, split.gallery)
            )
            if accelerator.is_main_process:
                metrics.features_map = features_map(asked, labels, searched, gallery_labels, top_k=settings.top_k)
    originals = draw_originals(dataset, split.gallery, settings.protocol_seed)
    if len(originals) and isinstance(gallery, np.ndarray):
        copies = trained.codes(NearCopies(dataset), split.gallery[originals], "near copies")
        recalls = score_copies(head, copies, gallery, originals, device=accelerator.device, accelerator=accelerator)
        for bits, recall in recalls.items():
            metrics.lengths.setdefault(str(bits), {}).update(recall.scores)
    longest = head.lengths[-1]
    metrics.constant_bits = constant_bits(columns(train, head.columns(longest)), longest)
    metrics.queries, metrics.gallery = len(split.query), len(split.gallery)
    if isinstance(gallery, np.ndarray):
        metrics.warnings = Collapse.of(columns(gallery, head.columns(longest)), longest).warnings()
    return metrics


def constant_bits(codes: np.ndarray, length: int) -> list[int]:
    """The bits, from 0, that are the same in all of these packed codes of `length` bits and so carry no information.

    Without codes there are none.
    """
    signs = unpack(codes, length)
    return np.flatnonzero((signs == signs[0]).all(axis=0)).tolist() if len(codes) else []
