"""Codes of queries and gallery, as a head gives them, scored at every length."""

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
        head: which made the codes.
        queries: packed codes, uint8 (Q, bytes), of all that the head gives.
        query_labels: multi-hot (Q, C).
        gallery: packed codes (G, bytes) likewise, or such as were learned for themselves, {length: (G, its bytes)}.
        gallery_labels: multi-hot (G, C).
        lengths: such as the head has, by default those that it was made for.
        top_k, device, accelerator: as for `evaluate`.
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
