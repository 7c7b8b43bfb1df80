"""An index in Milvus Lite against the local one on the same codes."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nestkala import Hasher, PrefixIndex
from nestkala.cli import main
from nestkala.codes import pack
from nestkala.index import Hits
from nestkala.index.milvus import MilvusIndex
from nestkala.server.app import make_app
from nestkala.utils.errors import NestKALAError

pytest.importorskip("pymilvus", reason="the extra milvus is not installed")

LENGTHS = (8, 16, 20, 32, 64)
ODD = "a 'quoted' \"name\" <b>ä\n.jpg"


def drawn(num: int, seed: int = 0) -> np.ndarray:
    """Packed codes of 64 bits in clusters, so that there are ties and near ones."""
    rng = np.random.default_rng(seed)
    centers = rng.choice([-1, 1], (50, 64))
    return pack(centers[rng.integers(50, size=num)] * np.where(rng.random((num, 64)) < 0.1, -1, 1))


@pytest.fixture(scope="module")
def local() -> PrefixIndex:
    return PrefixIndex.build(drawn(10_000), [f"{n}.jpg" for n in range(9_999)] + [ODD])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "photos.db")


@pytest.fixture(scope="module")
def milvus(local: PrefixIndex, address: str) -> Iterator[MilvusIndex]:
    index = MilvusIndex.create(address, LENGTHS, {"model": "a"})
    index.extend([local])
    yield index
    index.close()


def assert_same_up_to_ties(ours: Hits, theirs: Hits, q: int, local_all: dict[str, int]) -> None:
    """The same distances, the same ids nearer than the last distance, and rightful ones at it."""
    distances = ours.distances[q].tolist()
    assert theirs.distances[q].tolist() == distances
    for distance in set(distances) - {distances[-1]}:
        assert {n for n, d in zip(theirs.ids[q], distances, strict=True) if d == distance} == {
            n for n, d in zip(ours.ids[q], distances, strict=True) if d == distance
        }
    assert [local_all[name] for name in theirs.ids[q]] == distances
    assert len(set(theirs.ids[q])) == len(distances)


@pytest.mark.parametrize("bits", LENGTHS)
def test_both_give_the_same_ids_and_distances(local: PrefixIndex, milvus: MilvusIndex, bits: int) -> None:
    queries = np.concatenate([local.codes[:5], drawn(5, seed=1)])
    everything = local.search(queries, len(local), bits)
    for k in (1, 10, 300):
        ours, theirs = local.search(queries, k, bits), milvus.search(queries, k, bits)
        for q in range(len(queries)):
            distance_of = dict(zip(everything.ids[q], everything.distances[q].tolist(), strict=True))
            assert_same_up_to_ties(ours, theirs, q, distance_of)


def test_an_item_is_found_by_its_id(local: PrefixIndex, milvus: MilvusIndex) -> None:
    for name in list(local.ids)[:3]:
        (code, metadata), theirs = local.get(name) or pytest.fail(name), milvus.get(name) or pytest.fail(name)
        assert np.array_equal(theirs[0], code)
        assert theirs[1] == metadata
    assert milvus.get("none") is None


def test_radius_search_gives_the_same_set(local: PrefixIndex, milvus: MilvusIndex) -> None:
    queries = drawn(4, seed=1)
    for bits, radius in ((8, 0), (16, 2), (64, 9), (64, 0)):
        ours, theirs = (index.search_radius(queries, radius, bits) for index in (local, milvus))
        assert len(ours.ids) == len(theirs.ids) == len(ours.distances) == len(theirs.distances) == len(queries)
        for q in range(len(queries)):
            assert Counter(zip(theirs.ids[q], theirs.distances[q].tolist(), strict=True)) == Counter(
                zip(ours.ids[q], ours.distances[q].tolist(), strict=True)
            )


def test_coarse_to_fine_and_rescoring_are_those_of_the_local_index(local: PrefixIndex, milvus: MilvusIndex) -> None:
    queries = drawn(3, seed=2)
    # 200 nearest of all at full length are among 10,000 at 32 bits, whatever the order of ties there.
    fine = milvus.search(queries, 200, 32, shortlist=10_000)
    np.testing.assert_array_equal(fine.distances, local.search(queries, 200).distances)
    relaxed = np.random.default_rng(0).normal(size=(3, 64))
    ours = local.search(pack(relaxed), 50, 64, shortlist=10_000, rescore=relaxed)
    theirs = milvus.search(pack(relaxed), 50, 64, shortlist=10_000, rescore=relaxed)
    assert theirs.ids == ours.ids
    np.testing.assert_array_equal(theirs.distances, ours.distances)


def test_conditions_leave_what_they_leave_of_the_local_index(tmp_path: Path) -> None:
    codes = drawn(4_000)
    metadata = [{"stars": n % 5, "date": f"2024-0{1 + n % 9}"} if n % 7 else {} for n in range(4_000)]
    local = PrefixIndex.build(codes, [f"{n % 3}/{n}.jpg" for n in range(4_000)], 64, metadata)
    milvus = MilvusIndex.create(str(tmp_path / "photos.db"), (16, 64))
    milvus.extend([local])
    queries = drawn(3, seed=1)
    for where in (["stars>2"], ["folder=1", "date<=2024-03"], ["stars>9"]):
        everything = local.search(queries, 4_000, where=where)
        ours, theirs = (index.search(queries, 200, where=where) for index in (local, milvus))
        for q in range(3):
            all_at = dict(zip(everything.ids[q], everything.distances[q].tolist(), strict=True))
            if all_at:
                assert_same_up_to_ties(ours, theirs, q, all_at)
        near, nearby = (index.search_radius(queries, 12, where=where) for index in (local, milvus))
        assert [*map(set, near.ids)] == [*map(set, nearby.ids)]
    assert milvus.search(queries, 5, where=["stars>9"]).ids == [[], [], []]
    with pytest.raises(NestKALAError, match="no item has the key 'star'; did you mean 'stars'"):
        milvus.search(queries, 5, where=["star=1"])
    milvus.close()


def test_items_are_added_replaced_and_removed(tmp_path: Path) -> None:
    codes, address = drawn(2_500), str(tmp_path / "some.db#photos")
    index = MilvusIndex.create(address, (16, 64), {"model": "ä"})
    names = [f"{n}.jpg" for n in range(2_499)] + [ODD]
    index.add(codes, names, [{"size": n} for n in range(2_500)])
    index.add(codes[:1], [ODD], [{"size": -1}])
    assert len(index) == 2_500
    assert dict(index.items()) == {**{f"{n}.jpg": {"size": n} for n in range(2_499)}, ODD: {"size": -1}}
    index.remove(names[:2_498])
    assert sorted(index.items()) == [("2498.jpg", {"size": 2498}), (ODD, {"size": -1})]
    assert index.search(codes[:1], 5).ids == [[ODD, "2498.jpg"]]
    np.testing.assert_array_equal(index.get(ODD)[0], codes[:1])
    assert index.get("2.jpg") is None
    copy = index.local()
    assert (sorted(copy.items()), copy.about) == (sorted(index.items()), {"model": "ä"})
    np.testing.assert_array_equal(copy.get("2498.jpg")[0], codes[2498:2499])
    index.close()
    again = MilvusIndex.open(address)
    assert again is not None
    assert (again.lengths, again.bits, again.about, len(again)) == ((16, 64), 64, {"model": "ä"}, 2)
    again.remove([ODD, "2498.jpg"])
    assert again.search(codes[:2], 5).ids == [[], []]
    assert list(again.items()) == []
    again.close()


def test_what_milvus_does_not_do_is_told(milvus: MilvusIndex, address: str, tmp_path: Path) -> None:
    queries = drawn(1)
    for bits in (12, 0, 65, "8"):
        with pytest.raises(NestKALAError, match=r"bits must be one of the lengths .* \(8, 16, 20, 32, 64\)"):
            milvus.search(queries, 5, bits)  # type: ignore[arg-type]
    with pytest.raises(NestKALAError, match="Milvus returns at most 16,384 results, not 16,385"):
        milvus.search(queries, 16_385)
    with pytest.raises(NestKALAError, match=r"shortlist must be at least k \(5\), not 4"):
        milvus.search(queries, 5, shortlist=4)
    with pytest.raises(NestKALAError, match="queries have 8 bits, fewer than the 64"):
        milvus.search(queries[:, :1], 5)
    with pytest.raises(NestKALAError, match="holds only UTF-8 text"):
        milvus.add(queries, ["no \udcff text"])
    with pytest.raises(NestKALAError, match="16 bits to one of 64"):
        milvus.extend([PrefixIndex.build(queries[:, :2])])
    with pytest.raises(NestKALAError, match="already has a collection 'nestkala'"):
        MilvusIndex.create(address, (8,))
    assert MilvusIndex.open(f"{address}#other") is None
    assert MilvusIndex.open(str(tmp_path / "absent.db")) is None
    assert not list(tmp_path.iterdir())
    empty = milvus.search(queries[:0], 5)
    assert (empty.ids, empty.distances.shape[0]) == ([], 0)
    with pytest.raises(NestKALAError, match="Milvus"):
        MilvusIndex.open("http://127.0.0.1:9")


def test_the_web_page_offers_the_lengths_that_milvus_holds(
    milvus: MilvusIndex, local: PrefixIndex, noise_model: Path, tmp_path: Path
) -> None:
    app = make_app(milvus, Hasher.from_pretrained(noise_model, "cpu"), tmp_path)
    client = TestClient(app, raise_server_exceptions=False)
    page = client.get("/").text
    assert "Search 10,000 images" in page
    assert f"&quot;lengths&quot;: {list(LENGTHS)}" in page
    assert client.get("/browse").json() == {"results": [], "more": False}
    assert client.get("/classes").json() == {"classes": []}
    code = local.codes[7]
    assert client.get("/encode", params={"image": local.ids[7]}).json()["code"] == code.tobytes().hex()
    asked = {"code": code.tobytes().hex(), "bits": 16, "k": 5}
    answer = client.get("/search", params=asked)
    expected = local.search(code[None], 5, 16).distances[0].tolist()
    assert [found["distance"] for found in answer.json()["results"]] == expected
    answer = client.get("/search", params=asked | {"bits": 9})
    assert (answer.status_code, answer.json()["error"][:16]) == (400, "bits must be one")


def test_the_commands_work_with_milvus_in_place_of_a_file(
    noise_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, address = tmp_path / "photos", str(tmp_path / "photos.db")
    photos.mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((40, 40)).save(photos / f"{number}.png")

    def told(*args: object) -> dict[str, object]:
        assert main([*map(str, args), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    local = str(tmp_path / "photos.index")
    for where in (local, address):
        assert told("index", photos, where, "--model", noise_model)["images"] == 12
    (photos / "3.png").unlink()
    (photos / "4.png").write_bytes((photos / "5.png").read_bytes())
    for where in (local, address):
        changes = told("index", photos, where)
        assert (changes["images"], changes["changed"], changes["removed"]) == (11, ["4.png"], ["3.png"])
    for bits in (4, 20):
        ours, theirs = (
            told("search", where, photos / "5.png", "-k", 11, "--bits", bits)["results"] for where in (local, address)
        )
        for result in ours:  # type: ignore[attr-defined]
            del result["similarity"]  # which takes codes at hand
        assert sorted(map(str, ours)) == sorted(map(str, theirs))  # type: ignore[call-overload]
    assert main(["search", address, str(photos / "5.png"), "--bits", "7"]) == 2
    assert "(4, 20), not 7" in capsys.readouterr().err
    assert told("encode", photos, tmp_path / "shards", "--model", noise_model)["images"] == 11
    again = str(tmp_path / "again.db")
    for added in (11, 0):
        answer = told("index", tmp_path / "shards", again)
        assert (answer["images"], answer["added"]) == (11, added)
    (photos / os.fsdecode(b"no \xff.png")).write_bytes((photos / "5.png").read_bytes())
    (photos / "6.png").unlink()
    assert main(["index", str(photos), again]) == 2
    assert "Milvus holds only UTF-8 text" in capsys.readouterr().err
    (photos / os.fsdecode(b"no \xff.png")).unlink()
    changes = told("index", photos, again)  # nothing was lost before
    assert (changes["images"], changes["removed"]) == (10, ["6.png"])
