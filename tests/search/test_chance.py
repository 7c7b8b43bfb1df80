"""Which results are nearer than chance, on collections whose kinds are known."""

import numpy as np
import pytest

from nestkala.codes import hamming, pack
from nestkala.index import PrefixIndex
from nestkala.search.chance import Chance, chance_of_pairs, chance_of_query


def around(centers: np.ndarray, number: int, flipped: float, rng: np.random.Generator) -> np.ndarray:
    """Codes, -1 or +1, (centers * number, bits): each of a center's with this share of its bits flipped."""
    copies = np.repeat(centers, number, axis=0)
    return copies * np.where(rng.random(copies.shape) < flipped, -1, 1)


def centers(number: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], (number, 128))


def test_similarity_is_the_share_of_random_pairs_that_are_farther_apart() -> None:
    rng = np.random.default_rng(0)
    codes = pack(around(centers(10, rng), 30, 0.1, rng))
    apart = hamming(codes, codes)[np.triu_indices(300, 1)]
    similarity = chance_of_pairs(PrefixIndex.build(codes)).similarity(np.arange(129))
    exact = np.array([100 * (apart > distance).mean() for distance in range(129)])
    assert np.abs(similarity - exact).max() < 1.5  # of 20,000 pairs drawn


def test_similarity_to_a_sentence_is_the_share_of_images_that_are_farther_from_it() -> None:
    rng = np.random.default_rng(1)
    codes, query = pack(centers(500, rng)), pack(centers(1, rng))
    distances = hamming(query, codes, 24)[0]
    similarity = chance_of_query(PrefixIndex.build(codes), query, 24).similarity(np.arange(25))
    assert similarity == pytest.approx([100 * (distances > d).mean() for d in range(25)])


def test_a_mixture_is_compared_by_what_its_bits_cost() -> None:
    rng = np.random.default_rng(2)
    codes, mixed = pack(centers(400, rng)), rng.normal(size=(1, 128)).astype(np.float32)
    index = PrefixIndex.build(codes)
    found = index.search(pack(mixed), 400, shortlist=400, rescore=mixed).distances
    similarity = chance_of_query(index, mixed).similarity(np.asarray(found)[0])
    assert similarity == pytest.approx(100 * (1 - np.arange(1, 401) / 400), abs=0.3)


def test_the_limit_is_how_near_four_fifths_of_the_images_have_a_neighbor() -> None:
    rng = np.random.default_rng(3)
    codes = pack(around(centers(20, rng), 20, 0.08, rng))
    apart = hamming(codes, codes) + 1000 * np.eye(400, dtype=np.int32)
    nearest = np.sort(apart.min(axis=1))
    assert chance_of_pairs(PrefixIndex.build(codes)).limit == nearest[int(np.ceil(0.8 * 400)) - 1]


@pytest.mark.parametrize("bits", [None, 64])
def test_images_of_a_kind_that_is_not_there_match_nothing(bits: int | None) -> None:
    rng = np.random.default_rng(4)
    kinds = centers(30, rng)
    index = PrefixIndex.build(pack(around(kinds, 20, 0.08, rng)))
    chance = chance_of_pairs(index, bits)
    for queries, is_there in ((around(kinds, 1, 0.08, rng), True), (centers(30, rng), False)):
        found = index.search(pack(queries), 20, bits)
        matches = chance.is_relevant(np.asarray(found.distances)).any(axis=1)
        assert matches.mean() > 0.7 if is_there else matches.mean() < 0.1


def test_where_no_two_images_are_alike_hardly_anything_matches() -> None:
    rng = np.random.default_rng(5)
    index = PrefixIndex.build(pack(centers(1000, rng)))
    found = index.search(pack(centers(200, rng)), 10)
    matches = chance_of_pairs(index).is_relevant(np.asarray(found.distances))
    assert matches.sum(axis=1).mean() < 1.5  # one unrelated image in the whole collection, at the limit


def test_sentences_match_what_stands_out_and_nothing_where_nothing_does() -> None:
    rng = np.random.default_rng(6)
    kinds = centers(100, rng)
    index = PrefixIndex.build(pack(around(kinds, 10, 0.05, rng)))
    for kind in kinds[:10, None]:
        query = pack(kind * np.where(rng.random(128) < 0.15, -1, 1))  # as sentences are farther off than images
        found = index.search(query, 100)
        assert chance_of_query(index, query).is_relevant(np.asarray(found.distances)).sum() == 10
    for query in centers(30, rng)[:, None]:
        found = index.search(pack(query), 100)
        assert not chance_of_query(index, pack(query)).is_relevant(np.asarray(found.distances)).any()


def test_of_two_images_nothing_can_be_said() -> None:
    index = PrefixIndex.build(np.array([[0], [255]], np.uint8))
    for chance in (chance_of_pairs(index), chance_of_query(index, np.zeros((1, 1), np.uint8))):
        assert chance.is_relevant(np.array([0, 8])).all()
        assert chance.similarity(np.array([0, 8])).tolist() == [100, 100]
    assert not Chance(np.arange(3.0), -0.5).is_relevant(np.array([0])).any()


def test_where_all_codes_are_the_same_nothing_is_nearer_than_chance() -> None:
    index = PrefixIndex.build(np.zeros((50, 4), np.uint8))
    assert not chance_of_pairs(index).is_relevant(np.array([0])).any()
    assert not chance_of_query(index, np.zeros((1, 4), np.uint8)).is_relevant(np.array([0])).any()
