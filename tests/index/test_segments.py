"""An index file that grows by what changes, several files in one search, and searches from many threads."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestkala.cli import main
from nestkala.codes import hamming, pack
from nestkala.index import JoinedIndex, PrefixIndex
from nestkala.index.local import index_file
from nestkala.index.local.index_file import writing_alone
from nestkala.utils.errors import NestKALAError


def drawn(num: int, bits: int = 64, seed: int = 0) -> np.ndarray:
    """Packed codes, each several times."""
    rng = np.random.default_rng(seed)
    pool = pack(rng.standard_normal((num // 3 + 1, bits)))
    return pool[rng.integers(len(pool), size=num)]


def numbered(begin: int, end: int) -> list[str]:
    return [f"{number}.jpg" for number in range(begin, end)]


def content(index: PrefixIndex) -> list[tuple[str, bytes, str]]:
    codes = map(bytes, index.codes)
    return [(name, code, json.dumps(m)) for (name, m), code in zip(index.items(), codes, strict=True)]


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, list[int], list[list[tuple[str, bytes, str]]]]:
    """A file that was saved to four times, how long it was each time, and what it held."""
    path, codes, ends, states = tmp_path / "photos.index", drawn(400), [], []
    index = PrefixIndex.build(codes[:300], numbered(0, 300))
    for change in (
        lambda: None,
        lambda: index.add(codes[300:320], numbered(300, 320), [{"stars": n % 5} for n in range(20)]),
        lambda: index.remove(numbered(10, 15)),
        lambda: (index.remove(["301.jpg"]), index.add(codes[320:323], numbered(320, 323))),
    ):
        change()
        index.save(path)
        ends.append(path.stat().st_size)
        states.append(content(PrefixIndex.load(path)))
        assert states[-1] == content(index)
    return path, ends, states


def test_a_change_appends_what_it_adds_and_leaves_the_rest(tmp_path: Path) -> None:
    path, codes = tmp_path / "photos.index", drawn(20_100)
    index = PrefixIndex.build(codes[:20_000], numbered(0, 20_000))
    index.save(path)
    before = path.read_bytes()
    for few in range(20_000, 20_050, 10):
        index = PrefixIndex.load(path)
        index.add(codes[few : few + 10], numbered(few, few + 10))
        index.save(path)
    assert path.read_bytes().startswith(before)
    assert len(before) < path.stat().st_size < 1.02 * len(before)
    index.save(path)
    assert path.stat().st_size < 1.02 * len(before)
    whole = PrefixIndex.build(codes[:20_050], numbered(0, 20_050))
    assert content(PrefixIndex.load(path)) == content(whole)
    index.save(tmp_path / "other.index")
    whole.save(tmp_path / "whole.index")
    assert (tmp_path / "other.index").stat().st_size == (tmp_path / "whole.index").stat().st_size


def test_a_file_that_ends_anywhere_is_what_was_saved_last_before(
    grown: tuple[Path, list[int], list[list[tuple[str, bytes, str]]]],
) -> None:
    path, ends, states = grown
    whole = path.read_bytes()
    assert len(whole) == ends[-1]
    for end in {*range(ends[0], ends[-1], 37), *ends, *(end - 1 for end in ends[1:]), *(end + 1 for end in ends[:-1])}:
        path.write_bytes(whole[:end])
        expected = states[max(n for n in range(4) if ends[n] <= end)]
        index = PrefixIndex.load(path)
        assert content(index) == expected
        index.add(drawn(1), ["after.jpg"])
        index.save(path)
        assert len(PrefixIndex.load(path)) == len(expected) + 1
    for end in range(ends[0] + -ends[0] % 64, ends[-1], 64):  # as some file systems leave what did not arrive
        path.write_bytes(whole[:end] + bytes(ends[-1] - end))
        assert content(PrefixIndex.load(path)) == states[max(n for n in range(4) if ends[n] <= end)]


def test_every_flipped_bit_of_a_segment_is_noticed(
    grown: tuple[Path, list[int], list[list[tuple[str, bytes, str]]]],
) -> None:
    path, ends, states = grown
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in range(ends[0], ends[-1], 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = PrefixIndex.load(path)
        except NestKALAError as error:
            assert "photos.index" in str(error)  # noqa: PT017 - what lies between segments may differ
        else:
            assert content(found) == states[-1]


def test_readers_keep_the_state_that_they_opened(tmp_path: Path) -> None:
    path, codes = tmp_path / "photos.index", drawn(900)
    PrefixIndex.build(codes[:100], numbered(0, 100)).save(path)
    writer = PrefixIndex.load(path)
    readers = []
    for end in range(200, 901, 100):
        readers.append((PrefixIndex.load(path), end - 100))
        writer.add(codes[end - 100 : end], numbered(end - 100, end))
        writer.save(path)
    for reader, held in readers:
        assert content(reader) == content(PrefixIndex.build(codes[:held], numbered(0, held)))


def test_an_index_that_grows_little_by_little_stays_in_few_segments_and_a_small_file(tmp_path: Path) -> None:
    path, codes = tmp_path / "photos.index", drawn(3_000)
    index, written, size = PrefixIndex.empty(64), 0, 0
    for begin in range(0, 3_000, 10):
        index.add(codes[begin : begin + 10], numbered(begin, begin + 10))
        index.save(path)
        now = path.stat().st_size
        written += now - size if now > size else now
        size = now
    whole = tmp_path / "whole.index"
    built = PrefixIndex.build(codes, numbered(0, 3_000))
    built.save(whole)
    assert content(PrefixIndex.load(path)) == content(built)
    assert len(index._segments) <= 6
    assert size <= 2.5 * whole.stat().st_size
    assert written < 30 * whole.stat().st_size  # in place of 150 times
    index.remove(numbered(0, 2_900))
    index.save(path)
    assert path.stat().st_size < size / 10


def test_many_removals_near_a_query_do_not_hide_what_is_left() -> None:
    codes = np.zeros((3_000, 8), np.uint8)
    codes[2_000:] = drawn(1_000)
    index = PrefixIndex.build(codes, numbered(0, 3_000))
    index.remove(numbered(0, 1_400))
    for method in ("auto", "slices", "tables", "scan"):
        hits = index.search(np.zeros((1, 8), np.uint8), 700, method=method)  # type: ignore[arg-type]
        assert hits.ids[0][:600] == numbered(1_400, 2_000)
        distances = sorted(hamming(codes[:1], codes[2_000:], 64)[0].tolist())
        assert hits.distances[0].tolist() == [0] * 600 + distances[:100]


def test_an_update_by_another_is_not_lost(tmp_path: Path) -> None:
    path, codes = tmp_path / "photos.index", drawn(103)
    PrefixIndex.build(codes[:100], numbered(0, 100)).save(path)
    for change in (
        lambda index: index.add(codes[101:102], ["late.jpg"]),
        lambda index: index.remove(["3.jpg"]),
        lambda index: index.add(codes[:90], numbered(1_000, 1_090)),  # so many that all is written anew
    ):
        first, second = PrefixIndex.load(path), PrefixIndex.load(path)
        first.add(codes[100:101], [f"{time.monotonic_ns()}.jpg"])
        first.save(path)
        saved = path.read_bytes()
        change(second)
        with pytest.raises(NestKALAError, match=r"another process has changed .*photos\.index in the meantime"):
            second.save(path)
        assert path.read_bytes() == saved


def test_a_second_writer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index_file, "_PATIENCE", 0.1)
    path, holds, ends = tmp_path / "photos.index", threading.Event(), threading.Event()
    index = PrefixIndex.build(drawn(100), numbered(0, 100))
    index.save(path)
    index.remove(["3.jpg"])

    def hold() -> None:
        with writing_alone(path):
            holds.set()
            ends.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert holds.wait(60)
    try:
        with pytest.raises(NestKALAError, match=r"another process is changing .*photos\.index: try again"):
            index.save(path)
        (tmp_path / "photos").mkdir()
        assert main(["index", str(tmp_path / "photos")]) == 2
        assert "another process is changing" in capsys.readouterr().err
    finally:
        ends.set()
        other.join()
    index.save(path)
    assert len(PrefixIndex.load(path)) == 99


_APPEND = """
import sys
import numpy as np
from nestkala.index import PrefixIndex
index = PrefixIndex.load(sys.argv[1])
for number in range(len(index) // 2_000, 1_000):
    index.add(np.full((2_000, 8), number % 256, np.uint8), [f"{number} {n}" for n in range(2_000)])
    index.save(sys.argv[1])
    print(number, flush=True)
"""


@pytest.mark.slow
def test_kills_lose_only_what_was_being_appended(tmp_path: Path) -> None:
    path, rng = tmp_path / "photos.index", np.random.default_rng(0)
    PrefixIndex.empty(64).save(path)
    for _ in range(5):
        appending = subprocess.Popen([sys.executable, "-c", _APPEND, path], stdout=subprocess.PIPE, text=True)
        assert appending.stdout is not None
        appending.stdout.readline()
        time.sleep(rng.random())
        appending.kill()
        said = appending.communicate()[0].split()
        index = PrefixIndex.load(path)
        assert len(index) % 2_000 == 0
        assert len(index) >= 2_000 * (int(said[-1]) + 1 if said else 1)
        numbers = [int(name.split()[0]) for name in index.ids]
        assert sorted(set(numbers)) == [*range(len(index) // 2_000)]
        assert (index.codes == np.array(numbers)[:, None] % 256).all()


def test_many_threads_find_what_one_finds() -> None:
    codes, queries = drawn(6_000), drawn(12, seed=1)
    metadata = [{"stars": n % 5} for n in range(6_000)]

    def fresh() -> PrefixIndex:  # so that slices, tables and conditions are made by all at once
        index = PrefixIndex.build(codes[:4_500], numbered(0, 4_500), metadata=metadata[:4_500])
        index.add(codes[4_500:5_500], numbered(4_500, 5_500), metadata[4_500:5_500])
        index.add(codes[5_500:5_600], numbered(5_500, 5_600), metadata[5_500:5_600])
        index.remove(numbered(10, 60))
        return index

    def found(index: PrefixIndex) -> list[object]:
        answers: list[object] = []
        for bits in (5, 16, 40, 64):
            for where in ([], ["stars>2"]):
                for method in ("auto", "slices", "tables", "scan"):
                    hits = index.search(queries, 5, bits, method=method, where=where)  # type: ignore[arg-type]
                    answers += [hits.ids, hits.distances.tolist()]
                answers.append(index.search_radius(queries[:3], bits // 6, bits, where=where).ids)
        return answers

    expected, index, together = found(fresh()), fresh(), dict[int, list[object]]()
    begin = threading.Barrier(8)

    def run(number: int) -> None:
        begin.wait()
        together[number] = found(index)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index._segments) == 3
    assert together == dict.fromkeys(range(8), expected)


def told(folder: str, fingerprint: str = "a") -> dict[str, str]:
    return {"model": "m", "model_fingerprint": fingerprint, "folder": folder}


def test_joined_indexes_name_images_by_the_folder_above() -> None:
    codes = drawn(90)
    folders = ("/photos/2019", "/photos/2020/may", "/photos/2020/may")
    parts = [
        PrefixIndex.build(codes[30 * n : 30 * n + 30], numbered(30 * n, 30 * n + 30), about=told(folder))
        for n, folder in enumerate(folders)
    ]
    joined = JoinedIndex(parts)
    names = [f"{'2019' if n < 30 else '2020/may'}/{n}.jpg" for n in range(90)]
    whole = PrefixIndex.build(codes, names)
    assert joined.about["folder"] == "/photos"
    assert len(joined) == 90
    assert content(joined) == content(whole)
    for where in ([], ["folder=2020"], ["folder!=2019"]):
        ours, expected = (index.search(codes[:5], 40, 20, where=where) for index in (joined, whole))
        assert ours.ids == expected.ids
        np.testing.assert_array_equal(ours.distances, expected.distances)
        assert (
            joined.search_radius(codes[:5], 20, where=where).ids == whole.search_radius(codes[:5], 20, where=where).ids
        )
    for n in (3, 40, 80):
        assert joined.get(names[n])[0].tolist() == codes[n : n + 1].tolist()  # type: ignore[union-attr]
    assert joined.get("3.jpg") is None
    assert parts[0].search(codes[:1], 1).ids[0][0] in numbered(0, 30)  # which stays as it was


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (PrefixIndex.build(drawn(5, 32), about=told("/b")), "have 32 bits and those of a have 64"),
        (PrefixIndex.build(drawn(5), about=told("/b", "other")), "b and a were made with different models"),
        (PrefixIndex.build(drawn(5)), "b and a were made with different models"),
    ],
)
def test_indexes_of_other_models_are_not_joined(other: PrefixIndex, said: str) -> None:
    with pytest.raises(NestKALAError, match=said):
        JoinedIndex([PrefixIndex.build(drawn(5), about=told("/a")), other], ["a", "b"])


@pytest.mark.parametrize(
    "change",
    [
        lambda joined: joined.add(drawn(1), ["x"]),
        lambda joined: joined.extend([PrefixIndex.build(drawn(3))]),
        lambda joined: joined.remove(["1"]),
        lambda joined: joined.save("a.index"),
    ],
)
def test_joined_indexes_are_not_changed(change: Callable[[JoinedIndex], None]) -> None:
    joined = JoinedIndex([PrefixIndex.build(drawn(5))])
    with pytest.raises(NestKALAError, match="must be changed and saved one by one"):
        change(joined)


def test_the_command_searches_several_files(
    noise_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, images = np.random.default_rng(0), dict[str, np.ndarray]()
    for number in range(10):
        name = f"{2019 + number % 2}/{number}.png"
        images[name] = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[name]).save(tmp_path / "photos" / name)
    for folder, index in (("photos/2019", "a.index"), ("photos/2020", "b.index"), ("photos", "all.index")):
        assert main(["index", folder, index, "--model", str(noise_model), "--workers", "0", "--save-every", "2"]) == 0
    capsys.readouterr()
    query = "photos/2019/0.png"
    results = []
    for index in ("a.index,b.index", "all.index"):
        assert main(["search", index, query, "-k", "7", "--json", "--html", "found.html"]) == 0
        results.append(json.loads(capsys.readouterr().out)["results"])
    assert [row["distance"] for row in results[0]] == [row["distance"] for row in results[1]]
    assert results[0][0].items() >= {"distance": 0, "image": "2019/0.png"}.items()
    assert {row["image"] for row in results[0]} <= images.keys()
    assert "photos/2019/0.png" in Path("found.html").read_text()
    assert main(["search", "a.index,missing.index", query]) == 2
    assert "there is no index missing.index" in capsys.readouterr().err
