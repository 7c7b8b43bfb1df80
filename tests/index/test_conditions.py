"""Conditions on items: what they say, what is no condition, and searches narrowed by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestkala.codes import hamming, pack
from nestkala.index import PrefixIndex
from nestkala.index.conditions import Condition, parse_conditions
from nestkala.utils.errors import NestKALAError

ITEM = {"date": "2024-05-17T08:30:00", "stars": 4, "camera": "Pixel 7", "tags": ["sea", "dog"], "raw": False}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("folder=2024", True),
        ("folder=2024/may", True),
        ("folder = 2024/may/", True),
        ("folder=2024/ma", False),
        ("folder=", True),
        ("folder!=2024/may", False),
        ("folder!=2023", True),
        ("date>=2024-05", True),
        ("date<=2024-05", True),
        ("date<2024-05", False),
        ("date=2024", True),
        ("date>2024-05-16", True),
        ("stars>=4", True),
        ("stars>10", False),  # as numbers, not as text
        ("stars=4.0", True),
        ("camera=Pixel 7", True),
        ("camera!=Pixel 7", False),
        ("camera<Q", True),
        ("tags=dog", True),
        ("tags!=dog", False),
        ("tags=cat", False),
        ("raw=false", True),
        ("lens=50mm", False),
        ("lens!=50mm", True),
        ("lens<50", False),
    ],
)
def test_a_condition_holds_for_an_item_or_not(text: str, holds: bool) -> None:
    assert Condition.parse(text).holds("2024/may/a.jpg", ITEM) is holds


@pytest.mark.parametrize("text", ["", "folder", "=3", "date", "folder>2019", ">=2024"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(NestKALAError, match=r"condition must look like|folders can be compared"):
        parse_conditions(["stars=4", text])


def test_long_texts_are_read_in_one_pass_and_not_repeated_whole() -> None:
    spaces = " " * 1_000_000  # squared, this would take hours
    assert Condition.parse(f"a{spaces}={spaces}b{spaces}c{spaces}") == Condition("a", "=", f"b{spaces}c")
    with pytest.raises(NestKALAError) as refused:
        Condition.parse(f"a{spaces}b")
    assert len(str(refused.value)) < 300


def test_a_value_may_hold_signs() -> None:
    assert Condition.parse("note=a=b>c") == Condition("note", "=", "a=b>c")


def filled(num: int, bits: int, seed: int = 0) -> tuple[PrefixIndex, np.ndarray, list[tuple[str, dict[str, int]]]]:
    """An index of codes that repeat, its codes, and its items, in the order of being added."""
    rng = np.random.default_rng(seed)
    pool = pack(rng.standard_normal((max(1, num // 3), bits)))
    codes = pool[rng.integers(len(pool), size=num)]
    items = [(f"{2018 + n % 3}/{n}.jpg", {"stars": int(rng.integers(5))} if n % 4 else {}) for n in range(num)]
    names, metadata = zip(*items, strict=True) if items else ((), ())
    return PrefixIndex.build(codes, names, bits, metadata), codes, items


WHERE = ([], ["folder=2019"], ["stars>2"], ["stars!=1", "folder!=2018"], ["stars>9", "folder=2019"])


@settings(max_examples=150, deadline=None)
@given(st.integers(4, 60), st.integers(1, 80), st.integers(1, 20), st.sampled_from(WHERE), st.data())
def test_a_narrowed_search_is_brute_force_over_what_is_left(
    num: int, bits: int, k: int, where: list[str], data: st.DataObject
) -> None:
    index, codes, items = filled(num, bits)
    kept = [n for n, item in enumerate(items) if all(condition.holds(*item) for condition in parse_conditions(where))]
    length, radius = data.draw(st.integers(1, bits)), data.draw(st.integers(0, bits))
    relaxed = np.random.default_rng(num).standard_normal((2, bits)).astype(np.float32)
    queries = pack(relaxed)
    distances, whole = hamming(queries, codes, length), hamming(queries, codes, bits)
    for q in range(2):
        order = sorted(kept, key=lambda n: (distances[q, n], codes[n].tobytes(), n))
        names = [items[n][0] for n in order]
        for method in ("auto", "slices", "tables", "scan"):
            hits = index.search(queries, k, length, method=method, where=where)  # type: ignore[arg-type]
            assert hits.ids[q] == names[:k]
            assert hits.distances[q].tolist() == [distances[q, n] for n in order[:k]]
        near = index.search_radius(queries, radius, length, where=where)
        assert near.ids[q] == [items[n][0] for n in order if distances[q, n] <= radius]
        shortlist = order[: k + 5]
        fine = index.search(queries, k, length, shortlist=k + 5, where=where)
        assert fine.ids[q] == [items[n][0] for n in sorted(shortlist, key=lambda n: whole[q, n])][:k]
        soft = index.search(queries, k, length, shortlist=k + 5, rescore=relaxed, where=where)
        costs = np.unpackbits(codes[shortlist] ^ queries[q], axis=1, count=bits) @ np.abs(relaxed[q]).astype(float)
        np.testing.assert_allclose(soft.distances[q], np.sort(costs)[:k], rtol=1e-4, atol=1e-4)


def test_a_key_that_no_item_has_is_an_error_and_not_an_empty_answer() -> None:
    index, codes, _ = filled(40, 16)
    with pytest.raises(NestKALAError, match=r"no item has the key .star.; did you mean .stars.. .keys: folder, stars."):
        index.search(codes[:1], where=["folder=2019", "star>2"])
    with pytest.raises(NestKALAError, match="no item has the key 'date'"):
        index.search_radius(codes[:1], 3, where=["date>=2024-05"])
    assert PrefixIndex.empty(16).search(codes[:1], where=["date=2024"]).ids == [[]]


def test_a_narrowed_search_sees_what_is_added_and_removed() -> None:
    index, codes, items = filled(40, 16)
    left = {name for name, metadata in items if metadata.get("stars", 0) > 2}
    assert left
    for _ in range(2):
        assert set(index.search(codes[:1], 99, where="stars>2").ids[0]) == left  # one condition may stand alone
    index.add(codes[:1], ["new"], [{"stars": 3}])
    assert set(index.search(codes[:1], 99, where=["stars>2"]).ids[0]) == {*left, "new"}
    index.remove(left)
    assert index.search(codes[:1], 99, where=["stars>2"]).ids[0] == ["new"]
