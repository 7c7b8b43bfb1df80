"""Tables of substrings: every method finds what sorting all distances finds, on collections made to be hard."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestkala.codes import hamming, pack, prefix
from nestkala.commands.index import tell_of_tables
from nestkala.index import PrefixIndex
from nestkala.index.local import index_file
from nestkala.index.storage import read_index, write_index
from nestkala.index.tables import Tables, num_tables_of
from nestkala.utils.errors import NestKALAError
from nestkala.utils.packed_words import ordered_words

METHODS = ("auto", "slices", "tables", "scan")
Codes = np.ndarray


def arithmetic(num: int, bits: int, rng: np.random.Generator) -> Codes:
    step = int(rng.integers(1, 2**30))
    numbers = [n * step % 2**bits for n in range(num)]
    as_bytes = [(number << -bits % 8).to_bytes(-(-bits // 8), "big") for number in numbers]
    return np.frombuffer(b"".join(as_bytes), np.uint8).reshape(num, -(-bits // 8))


def half_constant(num: int, bits: int, rng: np.random.Generator, first: bool) -> Codes:
    h = rng.standard_normal((num, bits))
    h[:, slice(bits // 2) if first else slice(bits // 2, bits)] = 1
    return pack(h)


COLLECTIONS: dict[str, Callable[[int, int, np.random.Generator], Codes]] = {
    "uniform": lambda num, bits, rng: pack(rng.standard_normal((num, bits))),
    "all equal": lambda num, bits, rng: np.repeat(pack(rng.standard_normal((1, bits))), num, axis=0),
    "two values": lambda num, bits, rng: pack(rng.standard_normal((2, bits)))[rng.integers(2, size=num)],
    "tight cluster": lambda num, bits, rng: pack(np.where(rng.random((num, bits)) < 0.03, -1, 1)),
    "first half constant": lambda num, bits, rng: half_constant(num, bits, rng, True),
    "last half constant": lambda num, bits, rng: half_constant(num, bits, rng, False),
    "arithmetic sequence": arithmetic,
}


def nearest_by_sorting(codes: Codes, queries: Codes, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions by distance, then position, and their distances, of sorted codes."""
    distances = hamming(queries, codes, bits)
    order = np.argsort(distances, axis=1, kind="stable")
    return order, np.take_along_axis(distances, order, axis=1)


def in_order(codes: Codes) -> Codes:
    return codes[np.lexsort(codes.T[::-1])]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(COLLECTIONS)),
    st.integers(1, 150),
    st.integers(1, 300),
    st.integers(0, 9),
    st.data(),
)
def test_every_method_is_brute_force(name: str, bits: int, num: int, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    codes = in_order(COLLECTIONS[name](num, bits, rng))
    flips = np.packbits(rng.random((4, 8 * codes.shape[1])) < 0.1, axis=1)
    queries = prefix(codes[rng.integers(num, size=4)] ^ flips, bits)
    length, k = data.draw(st.integers(1, bits)), data.draw(st.integers(1, num))
    radius = data.draw(st.integers(0, bits))
    index = PrefixIndex.build(codes, bits=bits)
    order, distances = nearest_by_sorting(codes, queries, length)
    for method in METHODS:
        hits = index.search(queries, k, length, method=method)  # type: ignore[arg-type]
        assert hits.ids == [[str(n) for n in row[:k]] for row in order]
        np.testing.assert_array_equal(hits.distances, distances[:, :k])
    within = [[str(n) for n in row[far <= radius]] for row, far in zip(order, distances, strict=True)]
    assert index.search_radius(queries, radius, length).ids == within


@pytest.mark.parametrize("name", COLLECTIONS)
@pytest.mark.parametrize("bits", [24, 32, 48, 64, 100, 128, 200])
def test_large_collections_by_all_tables_and_by_the_first_alone(name: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes = in_order(COLLECTIONS[name](30_000, bits, rng))
    flips = np.packbits(rng.random((9, 8 * codes.shape[1])) < 0.05, axis=1)
    queries = prefix(codes[rng.integers(len(codes), size=9)] ^ flips, bits)
    words = ordered_words(codes)
    tables = Tables.of(words, num_tables_of(bits))
    for length in (13, 17, bits - 3, bits):
        whole = np.zeros_like(queries)
        short = prefix(queries, length)
        whole[:, : short.shape[1]] = short
        order, distances = nearest_by_sorting(codes, queries, length)
        for some in (tables, Tables(tables.positions[:0], tables.starts[:1])):
            near, found, answered = some.search(words, ordered_words(whole), length, 20)
            np.testing.assert_array_equal(near[answered], order[answered, :20])
            np.testing.assert_array_equal(found[answered], distances[answered, :20])
            for few in (1, 9):  # in one thread and over several
                near, found, answered = some.search(words, ordered_words(whole[:few]), length, 5, patient=True)
                assert answered.all()
                np.testing.assert_array_equal(near, order[:few, :5])
        index = PrefixIndex.build(codes, bits=bits)
        for asked in (1, 9):
            hits = index.search(queries[:asked], 20, length)
            assert hits.ids == [[str(n) for n in row[:20]] for row in order[:asked]]
        for radius in (0, 2, length // 2):
            within = [[str(n) for n in row[far <= radius]] for row, far in zip(order, distances, strict=True)]
            assert index.search_radius(queries, radius, length).ids == within


def test_shortlists_and_rescoring_are_the_same_by_every_method() -> None:
    rng = np.random.default_rng(0)
    relaxed = rng.standard_normal((5, 64))
    index = PrefixIndex.build(pack(rng.standard_normal((20_000, 64))))
    for options in ({"shortlist": 200}, {"rescore": relaxed}):
        by_scan = index.search(pack(relaxed), 7, 32, method="scan", **options)  # type: ignore[arg-type]
        for method in METHODS:
            hits = index.search(pack(relaxed), 7, 32, method=method, **options)  # type: ignore[arg-type]
            assert hits.ids == by_scan.ids
            np.testing.assert_array_equal(hits.distances, by_scan.distances)


def test_tables_follow_what_is_added_and_removed() -> None:
    rng = np.random.default_rng(0)
    codes = pack(rng.standard_normal((9_000, 64)))
    index = PrefixIndex.build(codes[:5_000])
    kept = list(range(5_000))
    for start in range(5_000, 9_000, 1_000):
        index.search(codes[:3], 5, method="tables")
        index.add(codes[start : start + 1_000], map(str, range(start, start + 1_000)))
        gone = set(rng.choice(kept, 700, replace=False).tolist())
        index.remove(map(str, gone))
        kept = [n for n in [*kept, *range(start, start + 1_000)] if n not in gone]
        distances = hamming(codes[:20], codes[kept], 64)
        expected = [
            [str(n) for _, _, n in sorted(zip(row, map(bytes, codes[kept]), kept, strict=True))[:5]]
            for row in distances.tolist()
        ]
        for method in METHODS:
            assert index.search(codes[:20], 5, method=method).ids == expected  # type: ignore[arg-type]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Codes]:
    """A file with tables, and its codes."""
    monkeypatch.setattr(index_file, "LARGE", 1_000)
    codes = pack(np.random.default_rng(0).standard_normal((2_000, 64)))
    PrefixIndex.build(codes).save(tmp_path / "large.index")
    return tmp_path / "large.index", codes


def test_tables_are_kept_with_an_index_and_stay_on_the_disk(kept: tuple[Path, Codes]) -> None:
    path, codes = kept
    index = PrefixIndex.load(path)
    tables = read_index(path).tables
    assert tables is not None
    assert not tables.positions.flags.writeable  # of a mapped file
    assert index.tables_bytes == 12 * 2_000 + 4 * 4 * (2**16 + 1)
    built = PrefixIndex.build(codes)
    assert built.tables_bytes == 0
    for bits in (24, 40, 64):
        expected = built.search(codes[:20], 9, bits, method="scan")
        for method in METHODS:
            assert index.search(codes[:20], 9, bits, method=method).ids == expected.ids  # type: ignore[arg-type]
    index.save(path, tables=False)
    assert PrefixIndex.load(path).tables_bytes == 0


def test_tables_that_do_not_fit_are_refused(kept: tuple[Path, Codes]) -> None:
    path, _ = kept
    piece = read_index(path)
    bits, about, arrays, tables = piece.bits, piece.about, piece.arrays, piece.tables
    assert tables is not None
    beyond, backwards = tables.positions.copy(), tables.starts.copy()
    beyond[1, 7] = 2_000
    backwards[2, 9] = 1_999
    for wrong, said in (
        (Tables(beyond, tables.starts), "refers to a code that does not exist"),
        (Tables(tables.positions, backwards), "before it begins"),
        (Tables(tables.positions[:2], tables.starts), "are not tables for"),
        (Tables(tables.positions, tables.starts[:3]), "are not offsets"),
        (Tables(tables.positions.astype(np.int64), tables.starts), "are not tables for"),
    ):
        write_index(path, bits, about, [np.array(array) for array in arrays], wrong)
        with pytest.raises(NestKALAError, match=said):
            PrefixIndex.load(path, verify=False)


def test_every_damaged_byte_of_tables_is_noticed(kept: tuple[Path, Codes]) -> None:
    path, _ = kept
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(len(whole), size=100).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(NestKALAError, match=r"large\.index"):
            PrefixIndex.load(path)


def test_an_index_tells_what_its_tables_take(kept: tuple[Path, Codes], capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_tables(PrefixIndex.load(kept[0]))
    assert capsys.readouterr().out == "tables for exact search: 536.3 bytes per code, 1 MB\n"
    tell_of_tables(PrefixIndex.build(kept[1]))
    assert not capsys.readouterr().out
