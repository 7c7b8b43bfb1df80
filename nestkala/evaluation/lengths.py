"""Scores codes of queries and gallery at every length, for any head."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..codes import columns
from ..heads import HashHead
from . import Metrics, evaluate

if TYPE_CHECKING:
    from accelerate import Accelerator

Codes = NDArray[np.uint8]
Labels = NDArray[np.generic]


def score_lengths(
    head: HashHead,
    queries: Codes,
    query_labels: Labels,
    gallery: Codes | Mapping[int, Codes],
    gallery_labels: Labels,
    lengths: Sequence[int] | None = None,
    top_k: int | None = None,
    *,
    device: torch.device | str = "cpu",
    accelerator: "Accelerator | None" = None,
) -> dict[int, Metrics]:
    """`evaluate` for codes of any head.

    Args:
        head: the head that made the codes.
        queries: packed codes, uint8 (Q, bytes), of all the head's outputs.
        query_labels: multi-hot (Q, C).
        gallery: packed codes (G, bytes) in the same format, or codes learned for each length, {length: (G, its bytes)}.
        gallery_labels: multi-hot (G, C).
        lengths: lengths of the head; all by default.
        top_k, device, accelerator: see `evaluate`.
    """
    lengths = head.lengths if lengths is None else lengths
    score = partial(evaluate, top_k=top_k, device=device, accelerator=accelerator)
    if head.nested and not isinstance(gallery, Mapping):
        return score(queries, query_labels, gallery, gallery_labels, lengths)
    found: dict[int, Metrics] = {}
    for bits in lengths:
        where = head.columns(bits)
        items = gallery[bits] if isinstance(gallery, Mapping) else columns(gallery, where)
        found |= score(columns(queries, where), query_labels, items, gallery_labels, (bits,))
    return found
