"""The prefix index against brute force over all items, at every length and by every way of searching."""

import json
import subprocess
import sys
import time
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pytest

from nestkala.codes import hamming, pack, prefix, unpack
from nestkala.index import PrefixIndex
from nestkala.index import strings as strings_module
from nestkala.index.scan import scan_prefixes
from nestkala.index.strings import Strings
from nestkala.utils import errors
from nestkala.utils.errors import NestKALAError
from nestkala.utils.packed_words import ordered_words, packed_bytes

LENGTHS = (5, 8, 13, 32, 40, 64, 70, 130)


def drawn(num: int, bits: int, seed: int = 0, spread: float = 0.2) -> np.ndarray:
    """Relaxed codes in crowds, so that prefixes repeat: (num, bits)."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).choice([-1.0, 1.0], (6, bits))
    flips = np.where(rng.random((num, bits)) < spread, -1, 1)
    return centers[rng.integers(6, size=num)] * flips * rng.uniform(0.1, 1, (num, bits))


def built(num: int, bits: int) -> tuple[PrefixIndex, np.ndarray, list[str]]:
    codes, ids = pack(drawn(num, bits)), [f"image {n}.jpg" for n in range(num)]
    return PrefixIndex.build(codes, ids=ids, bits=bits), codes, ids


def ranking(codes: np.ndarray, ids: list[str], query: np.ndarray, bits: int) -> list[tuple[int, str]]:
    """All items by distance over the first bits, then full code, then the order of being added."""
    distances = hamming(query[None], codes, bits)[0].tolist()
    order = sorted(range(len(ids)), key=lambda n: (distances[n], codes[n].tobytes(), n))
    return [(distances[n], ids[n]) for n in order]


def found(index: PrefixIndex, *args: object, **options: object) -> list[list[tuple[float, str]]]:
    hits = index.search(*args, **options)
    return [list(zip(d, i, strict=True)) for d, i in zip(hits.distances.tolist(), hits.ids, strict=True)]


@pytest.mark.parametrize("method", ["slices", "tables", "scan", "auto"])
@pytest.mark.parametrize("bits", LENGTHS)
def test_search_at_any_prefix_is_the_brute_force_ranking(bits: int, method: str) -> None:
    index, codes, ids = built(200, bits)
    queries = pack(drawn(7, bits, seed=1))
    for length in sorted({1, 2, bits // 2, bits - 1, bits} - {0}):
        for k in (1, 9, 200, 500):
            hits = found(index, queries, k, length, method=method)
            assert hits == [ranking(codes, ids, query, length)[:k] for query in queries]


@pytest.mark.parametrize("bits", LENGTHS)
def test_radius_gives_all_within_it_and_no_more(bits: int) -> None:
    index, codes, ids = built(150, bits)
    queries = pack(drawn(5, bits, seed=1))
    for length in (1, bits // 2, bits):
        for radius in (0, 1, bits // 4, bits, bits + 9):
            hits = index.search_radius(queries, radius, length)
            for query, names, distances in zip(queries, hits.ids, hits.distances, strict=True):
                expected = [item for item in ranking(codes, ids, query, length) if item[0] <= radius]
                assert list(zip(distances.tolist(), names, strict=True)) == expected


@pytest.mark.parametrize("bits", LENGTHS)
def test_coarse_to_fine_ranks_the_shortlist_by_the_full_code(bits: int) -> None:
    index, codes, ids = built(200, bits)
    queries, short = pack(drawn(6, bits, seed=1)), max(1, bits // 3)
    number = {name: n for n, name in enumerate(ids)}
    for query, hits in zip(queries, found(index, queries, 10, short, shortlist=60), strict=True):
        shortlist = [name for _, name in ranking(codes, ids, query, short)[:60]]
        full = hamming(query[None], codes, bits)[0]
        expected = sorted(shortlist, key=lambda name: full[number[name]])  # stable
        assert hits == [(full[number[name]], name) for name in expected[:10]]


@pytest.mark.parametrize("bits", LENGTHS)
def test_rescoring_adds_up_what_the_differing_bits_cost(bits: int) -> None:
    index, codes, ids = built(120, bits)
    relaxed, short = drawn(6, bits, seed=1), max(1, bits // 2)
    queries = pack(relaxed)
    number = {name: n for n, name in enumerate(ids)}
    for h, query, hits in zip(relaxed, queries, found(index, queries, 7, short, rescore=relaxed), strict=True):
        shortlist = [name for _, name in ranking(codes, ids, query, short)[:70]]
        costs = {}
        for name in shortlist:
            signs = unpack(codes[number[name]][None], bits)[0].tolist()
            costs[name] = sum(abs(v) for v, sign in zip(h.tolist(), signs, strict=True) if v * sign < 0)
        expected = sorted(shortlist, key=costs.__getitem__)[:7]
        assert [name for _, name in hits] == expected
        np.testing.assert_allclose([cost for cost, _ in hits], [costs[name] for name in expected], rtol=1e-5)


@pytest.mark.parametrize("bits", LENGTHS)
def test_the_number_of_distinct_prefixes_is_counted_at_every_length(bits: int) -> None:
    index, codes, _ = built(90, bits)
    for length in range(1, bits + 1):
        assert index.num_prefixes(length) == len(np.unique(prefix(codes, length), axis=0))


def test_an_item_is_found_by_its_id() -> None:
    codes, names = np.random.default_rng(0).integers(0, 256, (50, 3), dtype=np.uint8), [f"{n}.jpg" for n in range(50)]
    index = PrefixIndex.build(codes, names, metadata=[{"number": n} for n in range(50)])
    for n, name in enumerate(names):
        found = index.get(name)
        assert found is not None
        assert found[0].tolist() == [codes[n].tolist()]
        assert found[1] == {"number": n}
    assert index.get("50.jpg") is None
    assert PrefixIndex.empty(8).get("0.jpg") is None


def test_adding_and_removing_is_the_same_as_building_from_what_is_left() -> None:
    index, codes, ids = built(60, 20)
    gone = set(ids[5:50:3])
    index.remove(gone)
    index.add(codes[5:8], ["new 5", "new 6", "new 7"], [{"n": 5}, {"n": 6}, {"n": 7}])
    kept = [n for n in range(60) if ids[n] not in gone]
    names = [ids[n] for n in kept] + ["new 5", "new 6", "new 7"]
    other = PrefixIndex.build(np.concatenate([codes[kept], codes[5:8]]), names, 20)
    assert list(index.ids) == list(other.ids)
    np.testing.assert_array_equal(index.codes, other.codes)
    for length in (1, 7, 20):
        assert index.num_prefixes(length) == other.num_prefixes(length)
        assert found(index, codes[:3], 12, length) == found(other, codes[:3], 12, length)
    assert dict(index.items())["new 6"] == {"n": 6}
    assert dict(index.items())[ids[0]] == {}


def test_extending_is_the_same_as_building_from_all() -> None:
    whole, codes, ids = built(60, 20)
    parts = [PrefixIndex.build(codes[s], ids[s], 20, [{"n": n} for n in ids[s]]) for s in (slice(25), slice(25, 60))]
    index = PrefixIndex.empty(20)
    index.extend(parts)
    assert list(index.ids) == list(whole.ids)
    np.testing.assert_array_equal(index.codes, whole.codes)
    assert dict(index.items()) == {name: {"n": name} for name in ids}
    for others, said in ((parts[1:], "is given twice"), ([PrefixIndex.empty(12)], "12 bits to one of 20")):
        with pytest.raises(NestKALAError, match=said):
            index.extend(others)
        assert len(index) == 60
    index.extend([])
    assert list(index.ids) == list(whole.ids)


def test_an_emptied_index_finds_nothing_and_can_be_filled_again() -> None:
    index, codes, ids = built(9, 12)
    index.remove(ids)
    assert len(index) == 0
    assert found(index, codes[:2], 5) == [[], []]
    assert index.search_radius(codes[:2], 3).ids == [[], []]
    index.add(codes, ids)
    assert found(index, codes[:2], 5) == [ranking(codes, ids, code, 12)[:5] for code in codes[:2]]


def test_ids_are_numbers_unless_given_and_codes_keep_their_order_by_value() -> None:
    codes = np.array([[7, 1], [2, 255], [7, 0], [2, 255]], np.uint8)
    index = PrefixIndex.build(codes)
    assert list(index.ids) == ["1", "3", "2", "0"]
    np.testing.assert_array_equal(index.codes, codes[[1, 3, 2, 0]])


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda i, c: i.search(c, bits=21), r"bits must be a whole number from 1 to 20 \(the code length\), not 21"),
        (lambda i, c: i.search(c, bits=0), "bits must be"),
        (lambda i, c: i.search(c, k=0), "k must be a whole number of 1 or more, not 0"),
        (lambda i, c: i.search(c, k=9, shortlist=8), r"shortlist must be at least k \(9\), not 8"),
        (lambda i, c: i.search(c, method="scn"), "method must be auto, slices, tables or scan, not 'scn'"),
        (lambda i, c: i.search(c[:, :1]), "queries have 8 bits, fewer than the 20 to compare"),
        (lambda i, c: i.search(c[:, :1], bits=8, shortlist=50), "queries have 8 bits, fewer than the 20"),
        (
            lambda i, c: i.search(c, rescore=np.ones((1, 20))),
            r"rescore must be relaxed codes \(40, 20\), not \(1, 20\)",
        ),
        (lambda i, c: i.search(c.astype(int)), "need a numpy array of uint8"),
        (lambda i, c: i.search_radius(c, -1), "radius must be a whole number of 0 or more, not -1"),
        (lambda i, _: i.remove(["image 77.jpg"]), "no item 'image 77.jpg' in the index; did you mean 'image "),
        (lambda i, c: i.add(c[:1], ["image 3.jpg"]), "id 'image 3.jpg' is given twice"),
        (lambda i, c: i.add(c[:2], ["a", "a"]), "id 'a' is given twice"),
        (lambda i, c: i.add(c[:2], ["a"]), "got 2 codes, 1 ids"),
        (lambda i, c: i.add(c[:1], [3]), "ids must be strings, but id number 0 is int"),
        (lambda i, c: i.add(c[:1], ["a"], [{"x": {1}}]), "metadata must be JSON values"),
        (lambda _, c: PrefixIndex.build(c, bits=25), "bits: got 25, need an integer from 1 to 24"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(act, said: str) -> None:
    index, codes, ids = built(40, 20)
    with pytest.raises(NestKALAError, match=said):
        act(index, codes)
    assert sorted(index.ids) == sorted(ids)


def test_only_small_indexes_suggest_a_similar_id(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def counted(name: str, names: list[str], **kwargs: object) -> list[str]:
        compared.append(len(names))
        return get_close_matches(name, names, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(errors, "get_close_matches", counted)
    codes = np.zeros((20_000, 2), np.uint8)
    with pytest.raises(NestKALAError, match=r"no item '199' in the index; did you mean '19'\?"):
        PrefixIndex.build(codes[:20]).remove(["199"])
    with pytest.raises(NestKALAError, match=r"no item '20000' in the index$"):
        PrefixIndex.build(codes).remove(["20000"])
    assert sum(compared) <= 2020


@pytest.mark.parametrize("strings", [[], [""], ["", "a", ""], ["größer", "a\nb", "\udc80 no text", "猫"]])
def test_strings_come_back_as_they_were(strings: list[str]) -> None:
    kept = Strings.of(strings)
    assert list(kept) == strings
    assert list(kept.take(range(len(strings))[::-1])) == strings[::-1]
    assert list(Strings.concatenated([kept, Strings.of(["x"]), kept])) == [*strings, "x", *strings]


@pytest.mark.parametrize("collide", [False, True])
def test_strings_are_found_and_those_given_twice_are_noticed(collide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if collide:
        monkeypatch.setattr(strings_module, "fnv1a", lambda _, ends: np.zeros(len(ends), np.uint64))
    some = [f"photo {n}.jpg" for n in range(40)]
    kept = Strings.of(some)
    asked = ["photo 7.jpg", "photo", "", "photo 39.jpg", "photo 7.jpg", "photo 40.jpg"]
    assert kept.find(asked).tolist() == [7, -1, -1, 39, 7, -1]
    assert kept.find([]).tolist() == Strings.of([]).find([]).tolist() == []
    assert Strings.of([]).find(["a"]).tolist() == [-1]
    assert kept.duplicate() is Strings.of([]).duplicate() is Strings.of(["a"]).duplicate() is None
    assert Strings.of([*some, "x", "photo 7.jpg"]).duplicate() == "photo 7.jpg"


def test_hashes_are_fnv1a() -> None:
    kept = Strings.of(["", "a", "foobar", "größer"])
    expected = []
    for text in kept:
        digest = 0xCBF29CE484222325
        for byte in text.encode():
            digest = (digest ^ byte) * 0x100000001B3 % 2**64
        expected.append(digest)
    assert strings_module.fnv1a(kept.text, kept.ends).tolist() == expected
    assert expected[1] == 0xAF63DC4C8601EC8C  # published for "a"


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4, 5, 8, 9, 16, 17])
def test_words_sort_as_the_codes_do_and_give_them_back(num_bytes: int) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (300, num_bytes), dtype=np.uint8)
    words = ordered_words(codes)
    np.testing.assert_array_equal(packed_bytes(words, num_bytes), codes)
    order = np.lexsort(words.T[::-1])
    assert [codes[n].tobytes() for n in order] == sorted(code.tobytes() for code in codes)


@pytest.mark.parametrize(("bits", "length"), [(8, 3), (16, 16), (20, 9), (32, 31), (64, 1), (64, 40), (130, 70)])
@pytest.mark.parametrize("order", ["as drawn", "farthest first"])
def test_a_scan_at_a_prefix_is_the_brute_force_ranking_over_many_blocks(bits: int, length: int, order: str) -> None:
    codes = pack(drawn(20_000, bits, spread=0.3))
    if order == "farthest first":  # every item is nearer than those before it
        codes = codes[np.argsort(-hamming(codes[:1], codes, length)[0], kind="stable")]
    queries = np.concatenate([codes[-1:], pack(drawn(9, bits, seed=1))])
    distances = hamming(queries, codes, length)
    expected = np.argsort(distances, axis=1, kind="stable")
    shortened = prefix(queries, length)
    whole = np.zeros((len(queries), codes.shape[1]), np.uint8)
    whole[:, : shortened.shape[1]] = shortened
    for num, k in ((1, 1), (3, 10), (10, 10), (2, 9_000), (1, 20_000)):
        near, found = scan_prefixes(ordered_words(codes), ordered_words(whole[:num]), length, k)
        np.testing.assert_array_equal(near, expected[:num, :k])
        np.testing.assert_array_equal(found, np.take_along_axis(distances[:num], near, axis=1))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    codes, metadata = pack(drawn(50, 20)), [{"size": n, "name": f"ä{n}"} for n in range(50)]
    index = PrefixIndex.build(codes, [f"image {n}.jpg" for n in range(50)], 20, metadata, {"model": "a"})
    index.save(tmp_path / "photos.index")
    return tmp_path / "photos.index"


def is_mapped(array: np.ndarray, path: Path) -> bool:
    """Whether an array's numbers are a file's pages, as the system tells."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("what is mapped is read from /proc")
    place = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= place < end:
            return line.endswith(str(path))
    return False


def test_a_saved_index_is_the_same_and_stays_on_the_disk(saved: Path) -> None:
    index, (other, codes, _) = PrefixIndex.load(saved), built(50, 20)
    assert is_mapped(index.ids.text, saved)
    assert (len(index), index.bits, list(index.ids), index.about) == (50, 20, list(other.ids), {"model": "a"})
    for method in ("slices", "scan"):
        assert found(index, codes[:4], 9, 11, method=method) == found(other, codes[:4], 9, 11)
    assert dict(index.items())["image 7.jpg"] == {"size": 7, "name": "ä7"}
    index.remove(["image 7.jpg"])
    index.save(saved)
    assert len(PrefixIndex.load(saved)) == 49


def test_an_empty_index_can_be_kept(tmp_path: Path) -> None:
    PrefixIndex.build(np.empty((0, 3), np.uint8)).save(tmp_path / "empty.index")
    assert len(PrefixIndex.load(tmp_path / "empty.index")) == 0


_SAVE_AGAIN_AND_AGAIN = """
import sys
import numpy as np
from nestkala.index import PrefixIndex
number = 0
while True:
    number += 1
    codes = np.full((200_000, 8), number % 256, np.uint8)
    PrefixIndex.build(codes, about={"number": str(number)}).save(sys.argv[1])
    print(number, flush=True)
"""


def test_a_kill_during_save_leaves_a_whole_index(tmp_path: Path) -> None:
    path, rng = tmp_path / "photos.index", np.random.default_rng(0)
    for _ in range(5):
        saving = subprocess.Popen([sys.executable, "-c", _SAVE_AGAIN_AND_AGAIN, path], stdout=subprocess.PIPE)
        assert saving.stdout is not None
        saving.stdout.readline()
        time.sleep(rng.random())
        saving.kill()
        saving.communicate()
        index = PrefixIndex.load(path)
        assert (index.codes == int(index.about["number"]) % 256).all()
        assert len(index) == 200_000


def test_every_flipped_bit_and_every_cut_is_noticed(saved: Path) -> None:
    whole = saved.read_bytes()
    rng = np.random.default_rng(0)
    places = {*range(0, 800, 3), *rng.integers(len(whole), size=300).tolist(), len(whole) - 1}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(NestKALAError, match=r"photos\.index"):
            PrefixIndex.load(saved)
    for end in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:end])
        with pytest.raises(NestKALAError, match=r"photos\.index"):
            PrefixIndex.load(saved)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95", json.dumps({"a": 1}).encode(), b"\xff" * 100])
def test_a_foreign_file_is_no_index(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(NestKALAError, match=r"other is not a NestKALA index"):
        PrefixIndex.load(path)


def test_a_file_of_a_later_version_and_one_that_is_not_there(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b'"version":"1"', b'"version":"9"'))
    with pytest.raises(NestKALAError, match="has version 9, expected 2"):
        PrefixIndex.load(saved)
    with pytest.raises(NestKALAError, match=r"cannot read index .*absent"):
        PrefixIndex.load(saved.with_name("absent"))
