"""An index in PostgreSQL, in a real server, against the local one and against brute force on the same items."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nestkala import Hasher, PrefixIndex
from nestkala.cli import main
from nestkala.codes import hamming, pack
from nestkala.index import Hits
from nestkala.index.conditions import Condition
from nestkala.server.app import make_app
from nestkala.utils.errors import NestKALAError

psycopg = pytest.importorskip("psycopg", reason="the extra postgresql is not installed")

from postgres_server import running_postgres  # noqa: E402

from nestkala.index.postgres import PostgresIndex  # noqa: E402
from nestkala.index.postgres import address as address_module  # noqa: E402

ODD = "a 'quoted' \"name\" <b>ä\\\t%s {} \n.jpg"
_NUMBERS = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as uri:
        with psycopg.connect(f"{uri}/postgres", autocommit=True) as connection:
            connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'se#cret'")
            connection.execute("CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0")
        yield uri


@pytest.fixture
def address(server: str) -> str:
    """Of a table that is not there yet."""
    return f"{server}/postgres#table_{next(_NUMBERS)}"


def drawn(num: int, bits: int, seed: int = 0) -> np.ndarray:
    """Packed codes in clusters, so that there are ties, equal codes and near ones."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(9).choice([-1, 1], (20, bits))
    return pack(centers[rng.integers(20, size=num)] * np.where(rng.random((num, bits)) < 0.06, -1, 1))


def assert_same(ours: Hits, theirs: Hits) -> None:
    assert theirs.ids == ours.ids
    assert len(theirs.distances) == len(ours.distances)
    for a, b in zip(ours.distances, theirs.distances, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("bits", "partitions"), [(5, None), (20, 4), (64, None), (130, 8)])
def test_ids_distances_and_order_are_those_of_the_local_index(address: str, bits: int, partitions: int | None) -> None:
    codes, names = drawn(600, bits), [f"{n}.jpg" for n in range(599)] + [ODD]
    local = PrefixIndex.build(codes, names, bits, [{"n": n} for n in range(600)], {"model": "ä"})
    index = PostgresIndex.create(address, bits, {"model": "ä"}, partitions)
    index.extend([local])
    again = PostgresIndex.open(address)
    assert again is not None
    assert (again.bits, again.about, len(again), again.lengths) == (bits, {"model": "ä"}, 600, range(1, bits + 1))
    queries = np.concatenate([codes[:3], drawn(3, bits, seed=1)])
    relaxed = np.random.default_rng(0).normal(size=(6, bits)).round()  # with zeros, so that costs tie
    for length in sorted({1, 2, bits // 3, min(bits, 17), min(bits, 25), bits - 1, bits}):
        for k in (1, 10, 700):
            assert_same(local.search(queries, k, length), again.search(queries, k, length))
        assert_same(local.search(queries, 7, length, shortlist=90), again.search(queries, 7, length, shortlist=90))
        assert_same(local.search(queries, 7, length, shortlist=900), again.search(queries, 7, length, shortlist=900))
        for shortlist in (None, 9):
            options: dict[str, Any] = {"shortlist": shortlist, "rescore": relaxed}
            assert_same(local.search(queries, 9, length, **options), again.search(queries, 9, length, **options))
        for radius in (0, 2, bits // 4, bits + 9):
            assert_same(local.search_radius(queries, radius, length), again.search_radius(queries, radius, length))
    assert list(again.items()) == list(local.items())
    copy = again.local()
    assert (list(copy.ids), copy.about, list(copy.items())) == (list(local.ids), local.about, list(local.items()))
    np.testing.assert_array_equal(copy.codes, local.codes)
    np.testing.assert_array_equal(again.get(ODD)[0], codes[-1:])
    assert again.get("absent.jpg") is again.get("\0") is again.get("\udcff") is None
    assert_same(local.search(queries[:0], 3), again.search(queries[:0], 3))
    index.close()
    again.close()


@pytest.mark.parametrize("partitions", [None, 2])
def test_any_sequence_of_changes_gives_what_a_list_gives(address: str, partitions: int | None) -> None:
    rng, bits, number = np.random.default_rng(3), 18, count()
    index = PostgresIndex.create(address, bits, partitions=partitions)
    items: dict[str, tuple[np.ndarray, int, dict[str, int]]] = {}
    for step in range(25):
        if rng.random() < 0.3 and items:
            gone = rng.choice(sorted(items), rng.integers(len(items)), replace=False).tolist()
            index.remove(gone)
            items = {name: item for name, item in items.items() if name not in gone}
        else:
            codes = drawn(int(rng.integers(30)), bits, step)
            names = [f"é{n}" for n in rng.choice(80, len(codes), replace=False)]  # some of them are there
            metadata = [{"step": step, "n": n} for n in range(len(codes))]
            if rng.random() < 0.5:
                index.add(codes, names, metadata)
            else:
                index.extend([PrefixIndex.build(codes, names, bits, metadata)])
            items |= {a: (b, next(number), c) for a, b, c in zip(names, codes, metadata, strict=True)}
        assert len(index) == len(items)
        assert dict(index.items()) == {name: metadata for name, (_, _, metadata) in items.items()}
        (query,), length = drawn(1, bits, step + 100), int(rng.integers(1, bits + 1))
        ranking = sorted(
            (int(hamming(query[None], code[None], length)[0, 0]), code.tobytes(), order, name)
            for name, (code, order, _) in items.items()
        )
        hits = index.search(query[None], 12, length)
        assert hits.ids == [[name for *_, name in ranking[:12]]]
        assert hits.distances.tolist() == [[distance for distance, *_ in ranking[:12]]]
    index.remove(items)
    assert (len(index), list(index.items()), len(index.local())) == (0, [], 0)
    assert index.search(drawn(2, bits), 5).ids == [[], []]
    index.close()


ITEMS: dict[str, dict[str, Any]] = {
    "2024/may/a.jpg": {"date": "2024-05-17T08:30:00", "stars": 4, "camera": "Pixel 7", "tags": ["sea", "dog"]},
    "2024/may.jpg": {"date": "2024-05", "stars": 4.0, "raw": False, "tags": []},
    "2024/maybe/b.jpg": {"date": 20240517, "stars": "10", "camera": "pixel 7", "tags": ["3", 10, None, True]},
    "2023/c.jpg": {"date": "2023-12-31", "stars": 1e-7, "raw": True, "camera": "Nikon%20", "tags": "dog"},
    "c.jpg": {"date": None, "stars": None, "camera": "ß", "tags": None},
    "é/d.jpg": {"stars": " 1_000 ", "camera": "nan", "raw": "false", "tags": [["dog"]]},
    "é/f.jpg": {"stars": -2.5, "camera": "inf", "a'b\"c": "x'y", "raw": 0},
    "é0": {"stars": 12345678901234567890, "camera": "-.5e1", "raw": [False, 0.1]},
    "empty": {},
}
CONDITIONS = (
    *("folder=2024", "folder=2024/may", "folder = 2024/may/", "folder=2024/ma", "folder=", "folder!=", "folder=é"),
    *("folder!=2024/may", "folder=2024/may.jpg", "date>=2024-05", "date<=2024-05", "date<2024-05", "date=2024"),
    *("date>2024-05-16", "date!=2024", "date=", "date!=2024-05-17T08:30:00.000", "date=20240517", "stars>=4"),
    *("stars=4.0", "stars>5", "stars<=4", "stars!=4", "stars=10", "stars=1000", "stars=1e-7", "stars<0", "stars<abc"),
    *("stars>=", "stars=12345678901234567891", "stars<inf", "stars=nan", "stars!=nan", "stars<1e999", "stars>-1e-999"),
    *("camera=Pixel 7", "camera!=Pixel 7", "camera<Q", "camera>Z", "camera>=Pixel", "camera=Nikon%20", "camera=ß"),
    *("camera<0", "camera=-5", "camera>10", "camera=Infinity", "tags=dog", "tags!=dog", "tags=cat", "tags=10"),
    *("tags>9", "tags=true", "tags=None", "tags=True", "tags!=10", "tags=", "raw=false", "raw!=false", "raw=0"),
    *("raw=0.1", "raw>=false", "raw=False", "a'b\"c=x'y", "a'b\"c!=x'y", "stars=''; DROP TABLE x", "stars>%s"),
)


def test_conditions_mean_what_they_mean_elsewhere(address: str) -> None:
    codes = drawn(len(ITEMS), 24)
    index = PostgresIndex.create(address, 24)
    index.add(codes, ITEMS, ITEMS.values())
    everything = index.search(codes[:1], 99)
    ranking = list(zip(everything.ids[0], everything.distances[0].tolist(), strict=True))
    for texts in [*([text] for text in CONDITIONS), ["stars>=4", "folder=2024"], ["date>=2024", "camera!=x", "raw=0"]]:
        conditions = [Condition.parse(text) for text in texts]
        held = [(name, d) for name, d in ranking if all(one.holds(name, ITEMS[name]) for one in conditions)]
        for bits in (3, 24):
            hits = index.search(codes[:1], 99, bits, shortlist=100, where=texts)
            found = dict(zip(hits.ids[0], hits.distances[0].tolist(), strict=True))
            assert found == dict(held), texts
        hits = index.search_radius(codes[:1], 24, where=texts)
        assert list(zip(hits.ids[0], hits.distances[0].tolist(), strict=True)) == held, texts
        assert index.search(codes[:1], 2, where=texts).ids == [[name for name, _ in held[:2]]], texts
    index.close()


def test_a_condition_on_a_key_that_no_item_has_is_refused(address: str) -> None:
    index = PostgresIndex.create(address, 8)
    codes = drawn(1, 8)
    assert index.search(codes, where=["camera=x"]).ids == [[]]
    index.add(codes, ["a"], [{"camera": "x"}])
    for search in (
        lambda where: index.search(codes, where=where),
        lambda where: index.search_radius(codes, 1, where=where),
    ):
        with pytest.raises(NestKALAError, match=r"no item has the key 'camra'; did you mean 'camera'\?"):
            search(["camra=x"])
        with pytest.raises(NestKALAError, match="without NUL"):
            search(["camera=\0"])
        with pytest.raises(NestKALAError, match="condition must look like"):
            search(["camera"])
    index.close()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda i, c: i.search(c, bits=21), r"bits must be a whole number from 1 to 20 \(the code length\), not 21"),
        (lambda i, c: i.search(c, k=0), "k must be a whole number of 1 or more, not 0"),
        (lambda i, c: i.search(c, k=9, shortlist=8), r"shortlist must be at least k \(9\), not 8"),
        (lambda i, c: i.search(c[:, :1]), "queries have 8 bits, fewer than the 20"),
        (lambda i, c: i.search(c[:, :1], bits=8, shortlist=50), "queries have 8 bits, fewer than the 20"),
        (lambda i, c: i.search(c, rescore=np.ones((1, 20))), r"rescore must be relaxed codes \(40, 20\)"),
        (lambda i, c: i.search_radius(c, -1), "radius must be a whole number of 0 or more, not -1"),
        (lambda i, _: i.remove(["3.jpg", "77.jpg"]), "no item '77.jpg' in the index; did you mean '7.jpg'"),
        (lambda i, _: i.remove(["3.jpg", "\udcff"]), "no item '.udcff' in the index"),
        (lambda i, c: i.add(c[:2], ["a", "a"]), "id 'a' is given twice"),
        (lambda i, c: i.add(c[:2], ["a", "no \udcff text"]), "UTF-8 text without NUL, not 'no "),
        (lambda i, c: i.add(c[:2], ["a", "no\0"]), "UTF-8 text without NUL"),
        (lambda i, c: i.add(c[:2], ["a", "b" * 2601]), "at most 2600 bytes"),
        (lambda i, c: i.add(c[:2], ["a", "b"], [{"x": 1}, {"x": "\0"}]), "Unicode escape sequence"),
        (lambda i, c: i.add(c[:1], ["a"], [{"x": {1}}]), "metadata must be JSON values"),
        (lambda i, c: i.extend([PrefixIndex.build(c[:2], bits=20), PrefixIndex.build(c)]), "24 bits to one of 20"),
        (lambda i, c: i.extend(2 * [PrefixIndex.build(c[:2], bits=20)]), "id '[01]' is given twice"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(address: str, act: Callable[..., object], said: str) -> None:
    codes = drawn(40, 20)
    index = PostgresIndex.create(address, 20)
    index.add(codes, [f"{n}.jpg" for n in range(40)])
    before = list(index.items())
    with pytest.raises(NestKALAError, match=said) as raised:
        act(index, codes)
    assert "\n" not in str(raised.value)
    assert list(index.items()) == before
    index.close()


def test_what_can_be_wrong_with_an_address_is_told_in_one_line(
    server: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    PostgresIndex.create(address, 20).close()
    port = server.rpartition(":")[2]
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS other (id text)")
        connection.execute("CREATE TABLE IF NOT EXISTS newer (id text)")
        connection.execute("""COMMENT ON TABLE newer IS '{"format": "nestkala-index", "version": 9}'""")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    guarded = f"postgresql://guarded:se%23cret@127.0.0.1:{port}/postgres"
    wrong = {
        f"{server}/absent": 'database "absent" does not exist',
        f"{server}/latin": "encoding must be UTF8, not LATIN1",
        f"{server}/postgres#other": "the table other .* is not a NestKALA index",
        f"{server}/postgres#newer": "has version 9, expected 1: it was written by a newer NestKALA",
        f"{server}/postgres#no table": "the table name after # must be at most 63 letters",
        f"{server}/postgres#{'a' * 64}": "at most 63",
        "postgresql://me:top#secret@host/db": "write a # in a password as %23",
        "postgresql://me:topsecret@127.0.0.1:port/db": "invalid integer value .port.",
        "postgresql://me:top%secret@127.0.0.1/db": "must look like postgresql://USER@HOST:PORT",
        "postgresql://me:topsecret@127.0.0.1:9/db": "onnection refused",
        f"postgresql://guarded:topsecret@127.0.0.1:{port}/postgres": "password authentication failed",
    }
    for where, said in wrong.items():
        with pytest.raises(NestKALAError, match=said) as raised:
            PostgresIndex.open(where)
        assert "secret" not in str(raised.value)
        assert "\n" not in str(raised.value)
    assert PostgresIndex.open(f"{server}/postgres#absent") is None
    assert PostgresIndex.open(f"{server}/postgres#absent.photos") is None
    with pytest.raises(NestKALAError, match="permission denied for schema public"):
        PostgresIndex.create(f"{guarded}#photos", 20)
    theirs = PostgresIndex.open(f"{guarded}#{address.partition('#')[2]}")
    assert theirs is not None
    assert "cret" not in repr(theirs)
    for act in (lambda: len(theirs), lambda: list(theirs.items()), lambda: theirs.add(drawn(1, 20), ["a"])):
        with pytest.raises(NestKALAError, match="permission denied for table") as raised:
            act()
        assert "cret" not in str(raised.value)
    theirs.close()
    with pytest.raises(NestKALAError, match=r"the table table_\d+ already exists"):
        PostgresIndex.create(address, 8)
    for bits in (0, 16_385, "8"):
        with pytest.raises(NestKALAError, match="bits must be a whole number from 1 to 16384"):
            PostgresIndex.create(f"{server}/postgres#new", bits)  # type: ignore[arg-type]
    for partitions in (0, 1, 3, 2048, 16):
        with pytest.raises(NestKALAError, match="partitions must be a power of two from 2 to"):
            PostgresIndex.create(f"{server}/postgres#new", 3, partitions=partitions)
    monkeypatch.setattr(address_module, "_OLDEST", 99)
    with pytest.raises(NestKALAError, match=r"requires PostgreSQL 99 or later, not \d+\.\d+$"):
        PostgresIndex.open(address)


def test_a_schema_may_be_named_and_a_lost_connection_is_made_again(server: str) -> None:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE SCHEMA archive")
        index = PostgresIndex.create(f"{server}/postgres#archive.photos", 8, partitions=2)
        index.add(drawn(3, 8), "abc")
        gone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'nestkala'"
        connection.execute(gone)
    with pytest.raises(NestKALAError, match="PostgreSQL"):
        len(index)
    assert len(index) == 3
    index.close()


def test_readers_see_the_index_before_a_change_or_after_it(address: str) -> None:
    names, rounds, failed = [f"{n}" for n in range(60)], 30, list[object]()
    writer = PostgresIndex.create(address, 16)
    writer.add(np.zeros((60, 2), np.uint8), names, [{"round": 0}] * 60)
    done = threading.Event()

    def read() -> None:
        index = PostgresIndex.open(address)
        assert index is not None
        query = np.zeros((3, 2), np.uint8)
        while not done.is_set():
            for hits in (index.search(query, 100, 8), index.search(query, 100), index.search_radius(query, 16)):
                seen = {d for row in hits.distances for d in row.tolist()}
                if len(seen) != 1 or [len(ids) for ids in hits.ids] != [60] * 3:
                    failed.append(seen)
            seen_rounds = [metadata["round"] for _, metadata in index.items()]
            if len(seen_rounds) != 60 or len(set(seen_rounds)) != 1:
                failed.append(seen_rounds)
        index.close()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, rounds):
        code = pack(np.where(np.arange(16) < number % 8, 1, -1)[None])  # also among the first 8 bits
        writer.add(np.repeat(code, 60, axis=0), names, [{"round": number}] * 60)
    done.set()
    for reader in readers:
        reader.join()
    assert failed == []
    writer.close()


def test_writers_wait_for_one_another(address: str) -> None:
    PostgresIndex.create(address, 16, partitions=2).close()
    names, failed = [f"{n}" for n in range(30)], list[object]()

    def write(seed: int) -> None:
        index = PostgresIndex.open(address)
        assert index is not None
        try:
            for number in range(15):
                index.add(drawn(30, 16, seed + number), names, [{"seed": seed}] * 30)
        except NestKALAError as error:
            failed.append(error)
        index.close()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    index = PostgresIndex.open(address)
    assert index is not None
    items = list(index.items())
    assert sorted(name for name, _ in items) == sorted(names)
    assert len({metadata["seed"] for _, metadata in items}) == 1
    index.close()


_ADD_AND_WAIT = """
import sys, time
import numpy as np
from nestkala.index import PrefixIndex
from nestkala.index.postgres import PostgresIndex

def parts():
    yield PrefixIndex.build(np.ones((20_000, 2), np.uint8), [f"new {n}" for n in range(20_000)])
    print("half", flush=True)
    time.sleep(600)

index = PostgresIndex.open(sys.argv[1])
index.remove(["b"])
index.extend(parts())
"""


def test_a_killed_writer_changes_nothing_and_blocks_nobody(address: str) -> None:
    index = PostgresIndex.create(address, 16)
    index.add(drawn(3, 16), "abc")
    writing = subprocess.Popen([sys.executable, "-c", _ADD_AND_WAIT, address], stdout=subprocess.PIPE)
    assert writing.stdout is not None
    assert writing.stdout.readline() == b"half\n"
    assert sorted(name for name, _ in index.items()) == ["a", "c"]  # read while the other writes
    writing.kill()
    writing.communicate()
    index.add(drawn(1, 16), "d")
    assert sorted(name for name, _ in index.items()) == ["a", "c", "d"]
    index.close()


def test_the_web_page_searches_it(address: str, noise_model: Path, tmp_path: Path) -> None:
    codes = drawn(500, 20)
    index = PostgresIndex.create(address, 20)
    index.add(codes, map(str, range(500)))
    local = PrefixIndex.build(codes, bits=20)
    client = TestClient(make_app(index, Hasher.from_pretrained(noise_model, "cpu"), tmp_path))
    assert "Search 500 images" in client.get("/").text
    for asked in ({"bits": 7}, {"bits": 8, "shortlist": 50}, {}):
        answer = client.get("/search", params={"code": codes[7].tobytes().hex(), "k": 5, **asked}).json()["results"]
        hits = local.search(codes[7:8], 5, asked.get("bits"), shortlist=asked.get("shortlist"))
        assert [found["image"] for found in answer] == hits.ids[0]
        assert [found["distance"] for found in answer] == hits.distances[0].tolist()
    index.close()


def test_the_commands_work_with_postgresql_in_place_of_a_file(
    server: str, noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE photos OWNER guarded")
    photos, shown = tmp_path / "photos", f"{server.replace('tester', 'guarded')}/photos"
    address = f"{server.replace('tester', 'guarded:se%23cret')}/photos"
    photos.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 40)).save(photos / f"{number}.png")

    def told(*args: object) -> Any:
        assert main([*map(str, args), "--json"]) == 0
        said = capsys.readouterr()
        assert "cret" not in said.out + said.err
        return json.loads(said.out)

    def refused(*args: object) -> str:
        assert main([*map(str, args)]) == 2
        said = capsys.readouterr().err
        assert "cret" not in said
        return said

    assert f"there is no index {shown}#nestkala" in refused("search", address, photos / "5.png")
    local = str(tmp_path / "photos.index")
    for where in (local, address):
        assert told("index", photos, where, "--model", noise_model)["images"] == 12
    (photos / "3.png").unlink()
    (photos / "4.png").write_bytes((photos / "5.png").read_bytes())
    for where in (local, address):
        changes = told("index", photos, where)
        assert (changes["images"], changes["changed"], changes["removed"]) == (11, ["4.png"], ["3.png"])
    assert main(["index", str(photos), address]) == 0
    assert f"{shown}#nestkala: 11 images" in capsys.readouterr().out
    for query in (photos / "5.png", "5.png"):  # a file, and an image by its name in the index
        for flags in (["--bits", 7], [], ["--bits", 3, "--shortlist", 11], ["--also", photos / "6.png"]):
            ours, theirs = (told("search", where, query, "-k", 11, *flags)["results"] for where in (local, address))
            for result in ours:
                result.pop("similarity")  # which an index file alone can tell
            assert ours == theirs
    ours, theirs = (told("duplicates", where) for where in (local, address))
    assert ours == theirs
    assert ["4.png", "5.png"] in [sorted(set(group) & {"4.png", "5.png"}) for group in theirs["groups"]]
    for where, name in ((local, "ours.npy"), (address, "theirs.npy")):
        told("export", where, tmp_path / name)
    np.testing.assert_array_equal(np.load(tmp_path / "ours.npy"), np.load(tmp_path / "theirs.npy"))
    assert (tmp_path / "ours.ids.json").read_text() == (tmp_path / "theirs.ids.json").read_text()

    assert told("encode", photos, tmp_path / "shards", "--model", noise_model)["images"] == 11
    again = f"{address}#again"
    for added, flags in ((11, ["--partitions", 4]), (0, [])):
        answer = told("index", tmp_path / "shards", again, *flags)
        assert (answer["images"], answer["added"], answer["index"]) == (11, added, f"{shown}#again")
    assert "--partitions applies to a new index" in refused("index", photos, again, "--partitions", 4)
    assert "leave it out" in refused("index", photos, local, "--partitions", 4)
    assert "power of two" in refused("index", photos, f"{address}#third", "--partitions", 5)
    (photos / os.fsdecode(b"no \xff.png")).write_bytes((photos / "5.png").read_bytes())
    (photos / "6.png").unlink()
    assert "UTF-8 text without NUL" in refused("index", photos, again)
    (photos / os.fsdecode(b"no \xff.png")).unlink()
    changes = told("index", photos, again)  # nothing was lost before
    assert (changes["images"], changes["removed"]) == (10, ["6.png"])
    (tmp_path / "other").mkdir()
    assert f"{shown}#nestkala is an index of" in refused("index", tmp_path / "other", address)
