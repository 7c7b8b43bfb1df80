"""The prefix index under any sequence of changes, against a list that is searched by sorting."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nestkala.codes import hamming, pack
from nestkala.index import JoinedIndex, PrefixIndex
from nestkala.utils.errors import NestKALAError

METHODS = ("auto", "slices", "tables", "scan")


def drawn(num: int, bits: int, seed: int) -> np.ndarray:
    """Packed codes, few different ones, so that prefixes and whole codes repeat."""
    rng = np.random.default_rng(seed)
    pool = rng.choice([-1, 1], (3, bits))
    return pack(np.where(rng.random((num, bits)) < 0.1, -1, 1) * pool[rng.integers(3, size=num)])


class IndexAndList(RuleBasedStateMachine):
    """`items` are (code, id, number) in the order of being added, beside the index of the same."""

    @initialize(bits=st.integers(1, 130))
    def start(self, bits: int) -> None:
        self.bits, self.index, self.number = bits, PrefixIndex.empty(bits, {"of": "a test"}), 0
        self.items: list[tuple[np.ndarray, str, int]] = []
        self.folder, self.saved = tempfile.TemporaryDirectory(), None
        self.path = Path(self.folder.name, "an.index")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def new(self, num: int, seed: int) -> tuple[np.ndarray, list[str], list[dict[str, int]]]:
        codes, numbers = drawn(num, self.bits, seed), range(self.number, self.number + num)
        self.number += num
        ids = [f"é {number}\n" for number in numbers]
        self.items += zip(codes, ids, numbers, strict=True)
        return codes, ids, [{"number": number} for number in numbers]

    @rule(num=st.integers(0, 20), seed=st.integers(0, 9))
    def add(self, num: int, seed: int) -> None:
        self.index.add(*self.new(num, seed))

    @rule(num=st.integers(0, 20), seed=st.integers(0, 9))
    def extend(self, num: int, seed: int) -> None:
        codes, ids, metadata = self.new(num, seed)
        self.index.extend([PrefixIndex.build(codes, ids, self.bits, metadata)])

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.sets(st.sampled_from([name for _, name, _ in self.items]))) if self.items else set()
        self.index.remove(gone)
        self.items = [item for item in self.items if item[1] not in gone]

    @rule()
    def save(self) -> None:
        self.index.save(self.path)
        self.saved = [*self.items]

    @precondition(lambda self: self.saved is not None)
    @rule()
    def load(self) -> None:
        self.index, self.items = PrefixIndex.load(self.path), [*self.saved]
        assert self.index.about == {"of": "a test"}

    @precondition(lambda self: self.saved is not None)
    @rule(cut=st.floats(0, 1, exclude_max=True))
    def a_kill_while_saving_changes_nothing(self, cut: float) -> None:
        before = self.path.read_bytes()
        self.index.save(self.path)
        after = self.path.read_bytes()
        if after.startswith(before) and after != before:  # appended: else it was replaced as a whole
            self.path.write_bytes(after[: len(before) + int(cut * (len(after) - len(before)))])
            self.load()
        else:
            self.saved = [*self.items]

    @precondition(lambda self: self.items)
    @rule(seed=st.integers(0, 9))
    def add_twice(self, seed: int) -> None:
        with pytest.raises(NestKALAError, match="is given twice"):
            self.index.add(drawn(2, self.bits, seed), ["new", self.items[0][1]])

    @rule(bits=st.integers(1, 130), k=st.integers(1, 90), seed=st.integers(0, 9), method=st.sampled_from(METHODS))
    def search(self, bits: int, k: int, seed: int, method: str) -> None:
        bits, queries = min(bits, self.bits), drawn(seed % 3, self.bits, seed)
        hits = self.index.search(queries, k, bits, method=method)
        assert hits.distances.shape == (len(queries), min(k, len(self.items)))
        for query, ids, distances in zip(queries, hits.ids, hits.distances.tolist(), strict=True):
            assert list(zip(distances, ids, strict=True)) == self.ranking(query, bits)[:k]

    @rule(k=st.integers(1, 90), seed=st.integers(0, 9), method=st.sampled_from(METHODS), least=st.integers(0, 20))
    def search_some(self, k: int, seed: int, method: str, least: int) -> None:
        queries = drawn(2, self.bits, seed)
        hits = self.index.search(queries, k, method=method, where=[f"number>={least}"])
        for query, ids, distances in zip(queries, hits.ids, hits.distances.tolist(), strict=True):
            names = {name for _, name, number in self.items if number >= least}
            expected = [item for item in self.ranking(query, self.bits) if item[1] in names]
            assert list(zip(distances, ids, strict=True)) == expected[:k]

    @rule(bits=st.integers(1, 130), k=st.integers(1, 30), seed=st.integers(0, 9))
    def search_coarse_to_fine(self, bits: int, k: int, seed: int) -> None:
        bits, queries = min(bits, self.bits), drawn(2, self.bits, seed)
        hits = self.index.search(queries, k, bits, shortlist=k + 3)
        for query, ids, distances in zip(queries, hits.ids, hits.distances.tolist(), strict=True):
            whole = {name: distance for distance, name in self.ranking(query, self.bits)}
            coarse = [(whole[name], place, name) for place, (_, name) in enumerate(self.ranking(query, bits)[: k + 3])]
            expected = [(distance, name) for distance, _, name in sorted(coarse)]
            assert list(zip(distances, ids, strict=True)) == expected[:k]

    @rule(k=st.integers(1, 90), seed=st.integers(0, 9), method=st.sampled_from(METHODS), seam=st.floats(0, 1))
    def search_joined(self, k: int, seed: int, method: str, seam: float) -> None:
        seam = int(seam * len(self.items))
        parts = [PrefixIndex.empty(self.bits), PrefixIndex.empty(self.bits)]
        for part, items in zip(parts, (self.items[:seam], self.items[seam:]), strict=True):
            for code, name, number in items:
                part.add(code[None], [name], [{"number": number}])
        queries = drawn(2, self.bits, seed)
        hits = JoinedIndex(parts).search(queries, k, method=method)
        for query, ids, distances in zip(queries, hits.ids, hits.distances.tolist(), strict=True):
            assert list(zip(distances, ids, strict=True)) == self.ranking(query, self.bits)[:k]

    @rule(bits=st.integers(1, 130), radius=st.integers(0, 140), seed=st.integers(0, 9))
    def search_radius(self, bits: int, radius: int, seed: int) -> None:
        bits, queries = min(bits, self.bits), drawn(seed % 3, self.bits, seed)
        hits = self.index.search_radius(queries, radius, bits)
        for query, ids, distances in zip(queries, hits.ids, hits.distances, strict=True):
            expected = [item for item in self.ranking(query, bits) if item[0] <= radius]
            assert list(zip(distances.tolist(), ids, strict=True)) == expected

    def ranking(self, query: np.ndarray, bits: int) -> list[tuple[int, str]]:
        """By distance over the first bits, then the whole code, then the order of being added."""
        if not self.items:
            return []
        distances = hamming(query[None], np.stack([code for code, _, _ in self.items]), bits)[0].tolist()
        ranked = [(d, code.tobytes(), n) for d, (code, _, n) in zip(distances, self.items, strict=True)]
        names = {number: name for _, name, number in self.items}
        return [(distance, names[number]) for distance, _, number in sorted(ranked)]

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.index) == len(self.items)
        assert dict(self.index.items()) == {name: {"number": number} for _, name, number in self.items}


TestIndex = IndexAndList.TestCase


@given(st.integers(1, 70), st.integers(0, 30), st.integers(1, 40), st.sampled_from([torch.float32, torch.bfloat16]))
def test_rescoring_takes_what_a_model_gives(bits: int, num: int, k: int, dtype: torch.dtype) -> None:
    index = PrefixIndex.build(drawn(num, bits, seed=1), bits=bits)
    h = torch.tanh(torch.randn(2, bits, generator=torch.Generator().manual_seed(num))).to(dtype)
    as_tensor = index.search(pack(h), k, rescore=h.requires_grad_())
    as_array = index.search(pack(h), k, rescore=h.detach().float().numpy())
    assert as_tensor.ids == as_array.ids
    np.testing.assert_array_equal(as_tensor.distances, as_array.distances)
    assert np.isfinite(as_tensor.distances).all()


anything = st.one_of(st.integers(-3, 30), st.floats(), st.booleans(), st.text(max_size=2), st.just(np.int64(3)))


@given(anything, anything, anything, anything)
def test_numbers_that_are_not_whole_or_out_of_range_are_refused(
    k: object, bits: object, shortlist: object, radius: object
) -> None:
    index, query = PrefixIndex.build(drawn(5, 16, seed=0)), drawn(1, 16, seed=1)

    def whole(value: object, least: float, most: float = np.inf) -> bool:
        return type(value) in (int, np.int64) and bool(least <= value <= most)  # type: ignore[operator]

    if whole(k, 1) and whole(bits, 1, 16) and whole(shortlist, k):  # type: ignore[arg-type]
        assert len(index.search(query, k, bits, shortlist=shortlist).ids[0]) == min(k, 5)  # type: ignore[arg-type, type-var]
    else:
        with pytest.raises(NestKALAError, match=r"^(k|bits|shortlist) must be"):
            index.search(query, k, bits, shortlist=shortlist)  # type: ignore[arg-type]
    if whole(radius, 0) and whole(bits, 1, 16):
        assert len(index.search_radius(query, radius, bits).ids) == 1  # type: ignore[arg-type]
    else:
        with pytest.raises(NestKALAError, match=r"^(radius|bits) must be"):
            index.search_radius(query, radius, bits)  # type: ignore[arg-type]


def test_ids_and_metadata_that_a_file_cannot_hold_are_refused() -> None:
    codes = drawn(3, 16, seed=0)
    with pytest.raises(NestKALAError, match=r"id '\\ud800' cannot be written as UTF-8"):
        PrefixIndex.build(codes, ids=["a", "\ud800", "b"])
    with pytest.raises(NestKALAError, match="metadata must be JSON values"):
        PrefixIndex.build(codes, metadata=[{}, {"score": float("nan")}, {}])
    with pytest.raises(NestKALAError, match="ids must be strings, but id number"):
        PrefixIndex.build(codes).remove([1])  # type: ignore[list-item]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("queries", [0, 1])
def test_an_empty_index_finds_nothing_for_any_number_of_queries(queries: int, method: str) -> None:
    hits = PrefixIndex.empty(12).search(drawn(queries, 12, seed=0), 5, 7, method=method)  # type: ignore[arg-type]
    assert hits.ids == [[]] * queries
    assert hits.distances.shape == (queries, 0)
