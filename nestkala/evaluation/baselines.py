"""Baselines for codes: the level of chance, and the backbone's own features."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_QUERIES_AT_ONCE = 64

Labels = NDArray[np.bool_]


def chance_level(query_labels: Labels, gallery_labels: Labels) -> float:
    """The share of relevant images in the gallery, averaged over the queries: about the mAP of random codes.

    Args:
        query_labels: multi-hot (Q, C).
        gallery_labels: multi-hot (G, C); images that share a label are relevant.
    """
    gallery = torch.from_numpy(gallery_labels).float()
    shares = [_relevant(part, gallery).mean(dim=1) for part in _split(query_labels)]
    return torch.cat(shares).mean().item()


def features_map(
    queries: Tensor, query_labels: Labels, gallery: Tensor, gallery_labels: Labels, top_k: int | None = None
) -> float:
    """mAP of cosine search with centered features, in [0, 1]: a reference for codes of any length.

    Args:
        queries: features (Q, d).
        query_labels: multi-hot (Q, C).
        gallery: features (G, d); their mean centers all features.
        gallery_labels: multi-hot (G, C).
        top_k: score the first K results; all by default.
    """
    mean = gallery.mean(dim=0)
    items, labels = F.normalize(gallery - mean, dim=1), torch.from_numpy(gallery_labels).float()
    found = []
    for part, theirs in zip(queries.split(_QUERIES_AT_ONCE), _split(query_labels), strict=True):
        order = (F.normalize(part - mean, dim=1) @ items.T).argsort(dim=1, descending=True, stable=True)
        hits = _relevant(theirs, labels).gather(1, order[:, :top_k])  # (q, K)
        precisions = hits.cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1)
        found.append((hits * precisions).sum(dim=1) / hits.sum(dim=1).clamp(min=1))
    return torch.cat(found).mean().item()


def _split(labels: Labels) -> tuple[Tensor, ...]:
    return torch.from_numpy(labels).float().split(_QUERIES_AT_ONCE)


def _relevant(queries: Tensor, gallery: Tensor) -> Tensor:
    """1 if an image of the gallery shares a label with a query, else 0, (q, G)."""
    return (queries @ gallery.T > 0).float()
