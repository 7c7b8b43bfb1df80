"""Statistics of codes alone: balance and correlation of bits, how they group classes, and a map."""

import numpy as np
from numpy.typing import NDArray

from ..codes import hamming, unpack

_BLOCK = 2**16


def bit_statistics(codes: NDArray[np.uint8], bits: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each bit is 1, and how strongly any two are correlated.

    Args:
        codes: packed, uint8 (N, bytes), N at least 1.
        bits: number of leading bits to use, b.

    Returns:
        The share of ones of every bit (b,), and Pearson's correlation of every two bits (b, b), in -1..1; NaN if a bit
        is constant.
    """
    together = np.zeros((bits, bits))
    for start in range(0, len(codes), _BLOCK):  # whole numbers below 2^24: exact in single precision
        ones = (unpack(codes[start : start + _BLOCK], bits) > 0).astype(np.float32)
        together += ones.T @ ones
    together /= len(codes)  # how often both are 1
    balance = together.diagonal().copy()
    deviation = np.sqrt(balance * (1 - balance))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (together - np.outer(balance, balance)) / np.outer(deviation, deviation)
    constant = (balance == 0) | (balance == 1)
    correlation[constant] = correlation[:, constant] = np.nan
    return balance, correlation.clip(-1, 1)


def similar_bits(correlation: NDArray[np.float64], least: float = 0.95) -> dict[int, int]:
    """{bit: the earlier bit that it is most like}, for bits whose correlation (b, b) is `least` or more either way."""
    earlier = np.tril(np.nan_to_num(np.abs(correlation)), -1)  # (b, b)
    return {bit: int(row.argmax()) for bit, row in enumerate(earlier) if row.max() >= least}


def silhouette(codes: NDArray[np.uint8], classes: NDArray[np.int64]) -> float | None:
    """How well codes group classes, 0 to 100, as in KALAHash (AAAI 2025): 50 (s + 1).

    s in -1..1 is the mean silhouette coefficient (Rousseeuw, 1987) by Hamming distance; 50 means no grouping.

    Args:
        codes: packed, uint8 (N, bytes).
        classes: class indices (N,).

    Returns:
        The score; None unless there are 2 to N - 1 classes, since it is undefined otherwise.
    """
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(classes)) < len(classes):
        return None
    return 50 * (float(silhouette_score(hamming(codes, codes), classes, metric="precomputed")) + 1)


def embed(codes: NDArray[np.uint8], seed: int = 0) -> NDArray[np.float64] | None:
    """Positions (N, 2) in the plane, by t-SNE (van der Maaten and Hinton, 2008) on Hamming distances.

    codes: packed, uint8 (N, bytes). None for fewer than five codes.
    """
    from sklearn.manifold import TSNE

    if len(codes) < 5:
        return None
    perplexity = min(30.0, (len(codes) - 1) / 3)
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    places: NDArray[np.float64] = tsne.fit_transform(hamming(codes, codes).astype(np.float64))
    return places
