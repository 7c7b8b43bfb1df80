"""Groups of codes within a distance, against all pairs compared one by one."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from nestkala.codes import hamming
from nestkala.index.pairs import groups_within
from nestkala.utils.errors import NestKALAError


def close_codes(bits: int, seed: int) -> np.ndarray:
    """Packed codes in families: a few bits apart within one, equal ones among them."""
    rng = np.random.default_rng(seed)
    heads = rng.integers(0, 2, (12, bits))
    family = heads[rng.integers(0, 12, 150)] ^ (rng.random((150, bits)) < rng.choice([0, 0.03, 0.15], (150, 1)))
    return np.packbits(family, axis=1)


@pytest.mark.parametrize("bits", [8, 20, 64, 128, 200])
@pytest.mark.parametrize("radius", [0, 1, 3, 7])
def test_groups_are_the_connected_components_of_all_close_pairs(bits: int, radius: int) -> None:
    codes = close_codes(bits, seed=bits + radius)
    _, labels = connected_components(hamming(codes, codes) <= radius, directed=False)
    lowest = [int(np.flatnonzero(labels == label)[0]) for label in labels]
    assert groups_within(codes, radius).tolist() == lowest


def test_no_code_and_one_code() -> None:
    assert groups_within(np.zeros((0, 2), np.uint8), 3).tolist() == []
    assert groups_within(np.zeros((1, 2), np.uint8), 3).tolist() == [0]


def test_a_chain_is_one_group() -> None:
    chain = np.packbits(np.tri(17, 16, -1, dtype=int), axis=1)  # each one bit from the next
    assert groups_within(chain, 1).tolist() == [0] * 17


@pytest.mark.parametrize("radius", [-1, 16, 1.5])
def test_a_radius_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(NestKALAError, match="distance must be 0 to 15 bits"):
        groups_within(np.zeros((3, 2), np.uint8), radius)  # type: ignore[arg-type]
