"""Counts by distance and relevance, and average precision, on a GPU: matrix products and a stable sort per chunk."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]

_BLOCK = 128  # queries per chunk of the gallery


def rank(
    q_codes: Bytes,
    q_labels: Bytes,
    gallery: Iterable[tuple[Bytes, Bytes]],
    lengths: Sequence[int],
    top_k: int,
    device: torch.device,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Same as `cpu.rank`, in torch on a device."""
    counts, average_precision = rank_there(q_codes, q_labels, gallery, lengths, top_k, device)
    return counts.cpu().numpy(), average_precision.cpu().numpy()


def rank_there(
    q_codes: Bytes,
    q_labels: Bytes,
    gallery: Iterable[tuple[Bytes, Bytes]],
    lengths: Sequence[int],
    top_k: int,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Same as `rank`, with results on the device."""
    shape = len(lengths), len(q_codes), lengths[-1] + 1
    counts = torch.zeros(*shape, 2, dtype=torch.int64, device=device)
    for k, rows, distance, relevant in _pairs(q_codes, q_labels, gallery, lengths, device):
        counts[k, rows] += _histogram(distance, relevant, shape[2])
    before = counts.cumsum(dim=2) - counts  # (m, Q, b + 1, 2)
    places, hits = before.sum(dim=3), before[..., 1].clone()
    precisions = torch.zeros(*shape[:2], dtype=torch.float64, device=device)
    found = torch.zeros_like(precisions)
    for k, rows, distance, relevant in _pairs(q_codes, q_labels, gallery, lengths, device):
        here = _histogram(distance, relevant, shape[2])  # (q, b + 1, 2)
        distance, order = distance.sort(dim=1, stable=True)
        relevant = relevant.gather(1, order)
        # An item's rank in this chunk, minus the chunk's nearer items, plus the gallery's up to here.
        nearer = here.cumsum(dim=1) - here
        place = torch.arange(1, distance.shape[1] + 1, device=device)
        place = place + (places[k, rows] - nearer.sum(dim=2)).gather(1, distance)  # (q, n)
        hit = relevant.cumsum(dim=1) + (hits[k, rows] - nearer[..., 1]).gather(1, distance)
        counted = relevant & (place <= top_k)
        precisions[k, rows] += torch.where(counted, hit.double() / place, 0.0).sum(dim=1)
        found[k, rows] += counted.sum(dim=1)
        places[k, rows] += here.sum(dim=2)
        hits[k, rows] += here[..., 1]
    return counts, precisions / found.clamp(min=1)


def _pairs(
    q_codes: Bytes,
    q_labels: Bytes,
    gallery: Iterable[tuple[Bytes, Bytes]],
    lengths: Sequence[int],
    device: torch.device,
) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """Index of the length, rows of queries, distances to a chunk, int64 (q, n), and relevance, bool (q, n)."""
    queries, query_labels = _signs(q_codes, device), _bits(q_labels, device)
    for codes, labels in gallery:
        items, item_labels = _signs(codes, device), _bits(labels, device)
        for first in range(0, len(queries), _BLOCK):
            rows = slice(first, first + _BLOCK)
            relevant = query_labels[rows] @ item_labels.T > 0
            for k, bits in enumerate(lengths):
                # Half precision represents whole numbers up to 2,048 exactly, more than the bits of any code.
                agreement = queries[rows, :bits] @ items[:, :bits].T
                yield k, rows, ((bits - agreement) / 2).long(), relevant


def _signs(packed: Bytes, device: torch.device) -> Tensor:
    """Packed codes (N, bytes) as -1 and +1 (N, 8 bytes)."""
    return _bits(packed, device) * 2 - 1


def _bits(packed: Bytes, device: torch.device) -> Tensor:
    """Packed bits (N, bytes) as 0 and 1 (N, 8 bytes), in half precision if matrix products in it are fast."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
    bits = torch.from_numpy(np.array(packed)).to(device)[:, :, None] >> shifts & 1  # (N, bytes, 8)
    return bits.flatten(1).to(torch.float32 if device.type == "cpu" else torch.float16)


def _histogram(distance: Tensor, relevant: Tensor, size: int) -> Tensor:
    """Items of each query by distance below `size` and relevance, int64 (q, size, 2)."""
    key = distance * 2 + relevant  # (q, n)
    counts = torch.zeros(len(distance), 2 * size, dtype=torch.int64, device=distance.device)
    # not bincount, which synchronizes with the device to learn its size
    return counts.scatter_add_(1, key, torch.ones_like(key)).view(-1, size, 2)
