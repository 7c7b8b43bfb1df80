"""The web page's server: what it answers, and what it refuses."""

import asyncio
import json
import os
import socket
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from datetime import datetime
from html import unescape
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import serving
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient

from nestkala import Hasher
from nestkala.codes import hamming, unpack
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder
from nestkala.search.opening import open_index
from nestkala.search.places import folders_of
from nestkala.search.provenance import about_model, hasher_of
from nestkala.server import app as server
from nestkala.server import connections as server_connections
from nestkala.server import turns as server_turns
from nestkala.server import uploads as server_uploads
from nestkala.server.guard import is_host_name, own_names
from nestkala.server.turns import Turns
from reliability import hostile_requests, web_server
from reliability.web_server import ask

MARKUP = "<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def hasher(noise_model: Path) -> Hasher:
    return Hasher.from_pretrained(noise_model, "cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "photos"
    for number, name in enumerate([*(f"{n}.png" for n in range(15)), f"sub/{MARKUP}"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((600, 300)).save(path)
    (folder.parent / "secret.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "secret.txt").write_text("secret")
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    return folder


@pytest.fixture(scope="module")
def index(hasher: Hasher, photos: Path, noise_model: Path) -> PrefixIndex:
    made = PrefixIndex.empty(20, about_model(hasher, str(noise_model)))
    update_from_folder(made, photos, hasher)
    return made


@pytest.fixture(scope="module")
def client(index: PrefixIndex, hasher: Hasher, photos: Path) -> TestClient:
    return TestClient(server.make_app(index, hasher, photos), raise_server_exceptions=False)


def code_of(client: TestClient, data: bytes) -> str:
    answer = client.post("/encode", content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()["code"]


def test_an_image_and_a_sentence_have_the_models_codes(client: TestClient, photos: Path, hasher: Hasher) -> None:
    assert code_of(client, (photos / "3.png").read_bytes()) == hasher.encode(photos / "3.png")[0].tobytes().hex()
    answer = client.get("/encode", params={"text": " a photo of a dog. "})
    assert answer.json()["code"] == hasher.encode_text("a photo of a dog.")[0].tobytes().hex()


@pytest.mark.parametrize("bits", [1, 9, 20])
def test_search_ranks_by_distance_at_the_bits_asked_for(
    client: TestClient, photos: Path, hasher: Hasher, bits: int
) -> None:
    code = code_of(client, (photos / "3.png").read_bytes())
    answer = client.get("/search", params={"code": code, "bits": bits, "k": 17}).json()
    assert answer["ms"] >= 0
    names = [found["image"] for found in answer["results"]]
    assert sorted(names) == sorted([*(f"{n}.png" for n in range(15)), f"sub/{MARKUP}", "out.png"])
    codes = hasher.encode([photos / name for name in names])
    expected = hamming(hasher.encode(photos / "3.png"), codes, bits)[0].tolist()
    assert [found["distance"] for found in answer["results"]] == expected == sorted(expected)


def test_coarse_to_fine_ends_with_all_bits(client: TestClient, index: PrefixIndex, photos: Path) -> None:
    code = code_of(client, (photos / "3.png").read_bytes())
    fine = client.get("/search", params={"code": code, "bits": 2, "k": 5, "shortlist": len(index)}).json()["results"]
    full = client.get("/search", params={"code": code, "bits": 20, "k": 5}).json()["results"]
    assert [hit["distance"] for hit in fine] == [hit["distance"] for hit in full]
    last = full[-1]["distance"]  # of those at this distance others may be among the five
    nearer = [{hit["image"] for hit in hits if hit["distance"] < last} for hits in (fine, full)]
    assert nearer[0] == nearer[1]


def test_thumbnails_are_of_results_alone(client: TestClient, index: PrefixIndex) -> None:
    results = client.get("/search", params={"code": "000000", "k": 17}).json()["results"]
    assert {result["image"] for result in results} == set(index.ids)
    for result in results:
        answer = client.get(result["thumbnail"])
        if result["image"] == "out.png":  # a link that leads out of the folder
            assert answer.status_code == 404
            continue
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(BytesIO(answer.content)).size == (320, 160)
    ticket = results[0]["thumbnail"].removeprefix("thumbnail/")
    forged = urlsafe_b64encode(urlsafe_b64decode(ticket)[:16] + b"secret.png").decode()
    elsewhere = ["0", "-1", "0.png", "secret.txt", "../secret.png", "..%2Fsecret.png", "%2e%2e/secret.png", ticket[:-4]]
    for place in [
        *elsewhere,
        forged,
        f"{ticket}/../../secret.png",
        "\u0661",
        "A" * 10_000,
        urlsafe_b64encode(b"").decode(),
    ]:
        assert client.get(f"/thumbnail/{place}").status_code == 404
    for path in ("/secret.txt", "/../secret.png", "/photos/0.png", "//etc/passwd", "/..%5csecret.png"):
        assert client.get(path).status_code == 404


def test_pages_of_results_are_parts_of_one_ranking(client: TestClient) -> None:
    whole = client.get("/search", params={"code": "0f0f0f", "k": 17, "bits": 7}).json()
    pages = [client.get(f"/search?code=0f0f0f&bits=7&k=6&offset={offset}").json() for offset in (0, 6, 12)]
    assert [hit for page in pages for hit in page["results"]] == whole["results"]
    assert [page["more"] for page in pages] == [True, True, False]
    assert not whole["more"]
    beyond = client.get("/search", params={"code": "0f0f0f", "offset": 40}).json()
    assert (beyond["results"], beyond["more"]) == ([], False)


@pytest.mark.parametrize("bits", [5, 20])
def test_mixtures_rank_by_products_with_all_that_is_asked(
    client: TestClient, photos: Path, hasher: Hasher, bits: int
) -> None:
    wanted, unwanted = ["0ff0a0", "3c3c30"], ["a5a5a0"]
    parameters = (
        [("code", code) for code in wanted] + [("not", code) for code in unwanted] + [("bits", bits), ("k", 17)]
    )
    hits = client.get("/search", params=parameters).json()["results"]
    vectors = {code: unpack(np.frombuffer(bytes.fromhex(code), np.uint8)[None], 20)[0] for code in wanted + unwanted}
    mixed = (sum(vectors[code] for code in wanted) - 0.5 * vectors[unwanted[0]])[:bits]
    found = unpack(hasher.encode([photos / hit["image"] for hit in hits]), 20)[:, :bits]
    assert len(hits) == 17
    costs = [float(np.abs(mixed)[np.sign(code) != np.sign(mixed)].sum()) for code in found]
    assert [hit["distance"] for hit in hits] == costs == sorted(costs)
    pages = [client.get("/search", params=[*parameters[:-1], ("k", 6), ("offset", n)]).json() for n in (0, 6, 12)]
    assert [hit for page in pages for hit in page["results"]] == hits


def test_a_mixture_is_refined_by_whole_codes(client: TestClient) -> None:
    asked = "/search?code=0ff0a0&code=3c3c30&k=17"
    fine = client.get(f"{asked}&bits=5&shortlist=17").json()["results"]
    assert [hit["distance"] for hit in fine] == [hit["distance"] for hit in client.get(asked).json()["results"]]


def test_an_image_of_the_index_is_asked_with_by_name_or_ticket(
    client: TestClient, photos: Path, hasher: Hasher
) -> None:
    for name in ("3.png", f"sub/{MARKUP}"):
        by_name = client.get("/encode", params={"image": name}).json()
        assert by_name["code"] == hasher.encode(photos / name)[0].tobytes().hex()
        assert by_name["image"] == name
        assert client.get("/encode", params={"image": by_name["ticket"]}).json() == by_name
        assert client.get(by_name["thumbnail"]).status_code == 200
    for stranger in ("secret.txt", "../secret.png", str(photos / "3.png"), "", "4.PNG"):
        answer = client.get("/encode", params={"image": stranger})
        assert answer.status_code == 404
        assert "is not in the index" in answer.json()["error"]


def test_browsing_comes_to_every_image_once(client: TestClient, index: PrefixIndex) -> None:
    pages = [client.get("/browse", params={"k": 5, "offset": offset}).json() for offset in (0, 5, 10, 15)]
    assert sorted(hit["image"] for page in pages for hit in page["results"]) == sorted(index.ids)
    assert [page["more"] for page in pages] == [True, True, True, False]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 100, 997])
def test_what_is_browsed_first_is_spread_over_the_index(count: int) -> None:
    assert sorted(server._scattered(count, 0, count)) == list(range(count))
    some = sorted(server._scattered(count, 0, 20))
    gaps = np.diff([-1, *some, count])
    assert gaps.max() <= 3 * max(1, count / 21)


def test_photographs_are_enlarged_and_described(hasher: Hasher, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}  # where it was taken
    wide = Image.new("RGB", (2000, 1000), "red")
    wide.paste("blue", (0, 0, 1000, 1000))
    wide.save(tmp_path / "a.jpg", exif=exif)
    os.utime(tmp_path / "a.jpg", ns=(0, 10**18))
    saved = datetime.fromtimestamp(10**9).isoformat()
    dates = [{"date": "2019-05-04T12:00:00"}, {}, {"date": saved}]
    metadata = [{**date, "mtime_ns": 10**18} for date in dates] + [{}]
    for name in ("b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    names = ["a.jpg", "b.jpg", "c.jpg", "gone.jpg"]
    index = PrefixIndex.build(np.zeros((4, 3), np.uint8), names, 20, metadata)
    client = TestClient(server.make_app(index, hasher, tmp_path))
    first, *others, gone = (client.get("/encode", params={"image": name}).json()["ticket"] for name in names)
    large = Image.open(BytesIO(client.get(f"/photograph/{first}").content))
    assert large.size == (800, 1600)
    assert not large.getexif()
    assert large.convert("RGB").getpixel((400, 400))[2] > 200  # the left half has become the upper one
    facts = client.get(f"/about/{first}").json()
    size = (tmp_path / "a.jpg").stat().st_size
    assert facts == {"date": "2019-05-04T12:00:00", "taken": True, "width": 1000, "height": 2000, "bytes": size}
    for ticket in others:
        facts = client.get(f"/about/{ticket}").json()
        assert (facts["date"], facts["taken"]) == (saved, False)
    nothing = {"date": None, "taken": False, "width": None, "height": None, "bytes": None}
    assert client.get(f"/about/{gone}").json() == nothing
    for route in ("thumbnail", "photograph", "original"):
        assert client.get(f"/{route}/{gone}").status_code == 404


def test_a_file_that_is_replaced_is_shown_as_it_is_now(hasher: Hasher, tmp_path: Path) -> None:
    client = TestClient(server.make_app(PrefixIndex.build(np.zeros((1, 3), np.uint8), ["a.png"], 20), hasher, tmp_path))
    ticket = client.get("/encode?image=a.png").json()["ticket"]
    assert client.get(f"/thumbnail/{ticket}").status_code == 404
    for number, color in enumerate([(255, 0, 0), (0, 0, 255)]):
        Image.new("RGB", (8, 8), color).save(tmp_path / "a.png")
        os.utime(tmp_path / "a.png", ns=(0, number * 10**9))
        shown = Image.open(BytesIO(client.get(f"/thumbnail/{ticket}").content)).getpixel((4, 4))
        assert np.abs(np.subtract(shown, color)).max() < 8


def test_originals_are_served_only_where_they_may_be(index: PrefixIndex, hasher: Hasher, photos: Path) -> None:
    for allowed in (False, True):
        client = TestClient(server.make_app(index, hasher, photos, originals=allowed))
        for result in client.get("/search?code=000000&k=17").json()["results"]:
            answer = client.get(f"/original/{result['ticket']}")
            if not allowed or result["image"] == "out.png":
                assert answer.status_code == 404
                continue
            assert answer.content == (photos / result["image"]).read_bytes()
            assert answer.headers["content-type"] == "image/png"
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_classes_hold_the_images_whose_codes_are_nearest_to_theirs(
    client: TestClient, index: PrefixIndex, hasher: Hasher
) -> None:
    names = list(index.ids)
    nearest = (unpack(index.codes, 20) @ unpack(hasher.class_codes(), 20).T).argmax(axis=1)
    of_class = {kind: {names[n] for n in np.flatnonzero(nearest == place)} for place, kind in enumerate("ab")}
    counted = {one["name"]: one["images"] for one in client.get("/classes").json()["classes"]}
    assert counted == {kind: len(members) for kind, members in of_class.items() if members}
    for kind in counted:
        hits = client.get("/search", params={"class": kind, "k": 17}).json()["results"]
        assert {hit["image"] for hit in hits} == of_class[kind]
        codes = np.concatenate([index.get(hit["image"])[0] for hit in hits])  # type: ignore[index]
        distances = hamming(hasher.class_codes()[["ab".index(kind)]], codes, 20)[0].tolist()
        assert [hit["distance"] for hit in hits] == distances
        hits = client.get("/search", params={"class": kind, "code": "0f0f0f", "k": 17}).json()["results"]
        assert {hit["image"] for hit in hits} == of_class[kind]


def test_conditions_narrow_searches_classes_and_browsing(hasher: Hasher, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    names = [f"{'ab'[n % 2]}/{n}.jpg" for n in range(40)]
    index = PrefixIndex.build(codes, names, 20, [{"date": f"20{n:02}-05-01"} for n in range(40)])
    client = TestClient(server.make_app(index, hasher, tmp_path))
    asked = "where=folder%3Db&where=date%3E%3D2020"
    rightful = {name for n, name in enumerate(names) if n % 2 and n >= 20}
    for path in ("search?code=0f0f0f", "search?code=0f0f0f&not=aaaaaa", "search?code=0f0f0f&bits=3", "browse?"):
        found = client.get(f"/{path}&k=40&{asked}").json()
        assert {hit["image"] for hit in found["results"]} == rightful
        assert not found["more"]
        pages = [client.get(f"/{path}&k=4&offset={offset}&{asked}").json()["results"] for offset in (0, 4, 8)]
        assert [hit for page in pages for hit in page] == found["results"]
    of_class = client.get("/search?class=a&k=40").json()["results"]
    narrowed = client.get(f"/search?class=a&k=40&{asked}").json()["results"]
    assert narrowed == [hit for hit in of_class if hit["image"] in rightful]
    for path in ("search?code=0f0f0f&where=nonsense", "browse?where=folder%3C3"):
        assert client.get(f"/{path}").status_code == 400
    assert "8 conditions" in client.get("/browse?" + 9 * "where=a%3D1&").json()["error"]


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self' blob:; connect-src 'self'")
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in answer.text
    assert nonce not in client.get("/").text
    assert "://" not in answer.text
    known = json.loads(unescape(answer.text.partition('data-known="')[2].partition('"')[0]))
    assert known["lengths"] == list(range(4, 21))
    assert (known["bits"], known["images"], known["originals"]) == (20, 17, False)
    icon = client.get("/icon.svg")
    assert icon.headers["content-type"] == "image/svg+xml"
    assert b"<script" not in icon.content


def png(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 415, "this is not an image in a supported format"),
        (png(60, 60)[:50], 400, "image file is truncated"),
        (b"\0" * 20_000_001, 413, "the image is larger than 20 MB"),
    ],
    ids=["header", "cut", "long"],
)
def test_what_is_no_image_to_search_with_is_refused(client: TestClient, data: bytes, status: int, said: str) -> None:
    answer = client.post("/encode", content=data)
    assert answer.status_code == status
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/encode", "text must have 1 to 500 characters"),
        ("/encode?text=%20", "text must have 1 to 500 characters"),
        ("/encode?text=" + 501 * "a", "text must have 1 to 500 characters"),
        ("/search", "code must be 3 bytes in hexadecimal"),
        ("/search?code=xyzxyz", "code must be 3 bytes"),
        ("/search?code=00", "code must be 3 bytes"),
        ("/search?code=000000&bits=21", "bits must be a whole number from 1 to 20"),
        ("/search?code=000000&bits=one", "bits must be a whole number, not 'one'"),
        ("/search?code=000000&k=0", "k must be 1 to 200, not 0"),
        ("/search?code=000000&k=201", "k must be 1 to 200, not 201"),
        ("/search?code=000000&k=9&shortlist=8", "shortlist must be at least k (9), not 8"),
        ("/search?code=000000&k=9&shortlist=-8", "shortlist must be"),
        ("/search?code=000000&shortlist=10001", "shortlist must be at most 10000, not 10001"),
        ("/search?code=000000&offset=-1", "offset must be 0 to 9976, not -1"),
        ("/search?code=000000&k=100&offset=9901", "offset must be 0 to 9900, not 9901"),
        ("/search?code=000000&class=none", "the model has no class 'none'"),
        ("/search?not=000000", "code must be 3 bytes"),
        ("/search?code=000000&not=00", "code must be 3 bytes"),
        ("/search?" + 9 * "code=000000&", "a query can have at most 8 wanted"),
        ("/browse?k=201", "k must be 1 to 200, not 201"),
    ],
)
def test_what_cannot_be_asked_is_told(client: TestClient, path: str, said: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of a real server of an index with entries that lead out of its folder, and a secret file in it."""
    folder = tmp_path_factory.mktemp("hostile")
    index = open_index(str(web_server.make_index(folder)))
    with serving(
        server.make_app(index, hasher_of(index), folders_of(index), own_names("127.0.0.1"), originals=True)
    ) as port:
        yield port, folder / "photos" / "secret.txt"


def test_no_path_leads_to_a_file(hostile: tuple[int, Path]) -> None:
    finding = hostile_requests.refused_paths(*hostile)
    assert finding.held, finding


@pytest.mark.parametrize("attack", ["served_images", "refused_images", "refused_sizes", "refused_pages"])
def test_strangers_are_refused(hostile: tuple[int, Path], attack: str) -> None:
    finding = getattr(hostile_requests, attack)(hostile[0])
    assert finding.held, finding


def test_slow_clients_are_closed_and_others_answered(
    hostile: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connections, "PATIENCE", 5.0)  # which those that are not slow keep on a busy machine
    monkeypatch.setattr(server_uploads, "UPLOAD_SECONDS", 5.0)
    ask(hostile[0], "/encode?text=a%20dog")
    finding = hostile_requests.slow_clients(hostile[0], 12, 600)
    assert finding.held, finding


def test_a_slow_upload_is_told(hostile: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_uploads, "UPLOAD_SECONDS", 0.3)
    answer = ask(hostile[0], "/encode", b"some", {"Content-Length": "100"})
    assert (answer.status, answer.said) == (408, "the image took more than 0.3 s to arrive")


def test_connections_beyond_the_limit_are_closed(hostile: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connections, "MAX_CONNECTIONS", 5)
    crowd = [socket.create_connection(("127.0.0.1", hostile[0])) for _ in range(5)]
    while ask(hostile[0], "/").status != 0:  # until all five are accepted
        pass
    for connection in crowd:
        connection.close()
    while ask(hostile[0], "/").status != 200:
        pass


def test_an_upload_that_is_broken_off_is_no_failure(
    hostile: tuple[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", hostile[0])) as connection:
        connection.sendall(b"POST /encode HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nsome")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
    assert ask(hostile[0], "/").status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("host", "called", "status"),
    [
        ("127.0.0.1", "localhost:8000", 200),
        ("127.0.0.1", "LOCALHOST", 200),
        ("127.0.0.1", "127.0.0.1:8000", 200),
        ("127.0.0.1", "[::1]:8000", 200),
        ("127.0.0.1", "127.0.0.2", 400),
        ("127.0.0.1", "localhost.stranger.example", 400),
        ("127.0.0.1", "[", 400),
        ("127.0.0.2", "127.0.0.2", 200),
        ("::1", "[::1]:8000", 200),
        ("localhost", "stranger.example", 400),
        ("0.0.0.0", "stranger.example", 200),
        ("photos.example", "stranger.example", 200),
    ],
)
def test_on_this_machine_alone_the_server_goes_by_its_own_names(
    index: PrefixIndex, hasher: Hasher, photos: Path, host: str, called: str, status: int
) -> None:
    client = TestClient(server.make_app(index, hasher, photos, own_names(host)))
    answer = client.get("/", headers={"Host": called})
    assert answer.status_code == status
    assert ("error" in answer.json()) if status == 400 else True


def test_a_server_for_others_that_has_a_name_answers_to_no_stranger() -> None:
    assert own_names("0.0.0.0") is None
    assert set(own_names("0.0.0.0", "Photos.example") or ()) >= {"photos.example", "localhost"}


@pytest.mark.parametrize(
    ("name", "good"),
    [("photos.example", True), ("Photos", True), ("p.example:443", False), ("https://p.example", False), ("a b", True)],
)
def test_a_name_is_a_hosts_alone(name: str, good: bool) -> None:
    assert is_host_name(name) == good


def test_behind_a_proxy_the_server_goes_by_its_name_too(index: PrefixIndex, hasher: Hasher, photos: Path) -> None:
    client = TestClient(server.make_app(index, hasher, photos, own_names("127.0.0.1", "Photos.example")))
    called = {"Host": "photos.example", "Origin": "https://photos.example"}
    assert client.post("/encode", content=(photos / "3.png").read_bytes(), headers=called).status_code == 200
    assert client.get("/", headers={"Host": "localhost"}).status_code == 200
    assert client.get("/", headers={"Host": "stranger.example"}).status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://testserver", 200), ("http://stranger.example", 403), ("null", 403), ("http://testserver.example", 403)],
)
def test_pages_of_other_sites_may_not_ask(client: TestClient, photos: Path, origin: str, status: int) -> None:
    answer = client.post("/encode", content=(photos / "3.png").read_bytes(), headers={"Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/", "/search", "/thumbnail/0", "/none"])
def test_browsers_are_told_to_keep_other_sites_away(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"), [("DELETE", "/search", 405), ("PUT", "/encode", 405), ("GET", "/x", 404)]
)
def test_every_refusal_is_json(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_a_failure_tells_nothing_of_the_server(index: PrefixIndex, photos: Path) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a path of the server")

    app = server.make_app(index, SimpleNamespace(encode_text=fail, class_names=()), photos)  # type: ignore[arg-type]
    answer = TestClient(app, raise_server_exceptions=False).get("/encode?text=a")
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal server error; see the output of the server"}


def test_one_image_is_decoded_at_a_time_and_sentences_need_not_wait(index: PrefixIndex, photos: Path) -> None:
    inside, most, order = 0, 0, list[str]()
    text_was_encoded = threading.Event()

    def encode(_: bytes) -> np.ndarray:
        nonlocal inside, most
        inside, most = inside + 1, max(most, inside + 1)
        assert text_was_encoded.wait(300)
        inside -= 1
        order.append("image")
        return np.zeros((1, 3), np.uint8)

    def encode_text(_: str) -> np.ndarray:
        order.append("text")
        text_was_encoded.set()
        return np.zeros((1, 3), np.uint8)

    app = server.make_app(index, SimpleNamespace(encode=encode, encode_text=encode_text, class_names=()), photos)  # type: ignore[arg-type]
    data = (photos / "3.png").read_bytes()

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            uploads = [client.post("/encode", content=data) for _ in range(12)]
            answers = await asyncio.gather(*uploads, client.get("/encode?text=a"))
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask_all()) == [200] * 13
    assert most == 1
    assert order == ["text"] + ["image"] * 12


def test_who_waits_too_long_for_a_turn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_turns, "WAIT_SECONDS", 0.05)

    async def wait() -> str:
        turns = Turns(1)
        async with turns.turn():
            with pytest.raises(HTTPException) as refusal:
                async with turns.turn():
                    raise AssertionError("two at a time")
        async with turns.turn():  # which is free again
            return f"{refusal.value.status_code}: {refusal.value.detail}"

    assert asyncio.run(wait()) == "503: the server is busy: try again later"


def request_of(parts: list[bytes], received: Callable[[], object] = lambda: None) -> Request:
    waiting = list(parts)

    async def receive() -> dict[str, Any]:
        part = waiting.pop(0)
        received()
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_large_uploads_wait_for_room_and_small_ones_do_not() -> None:
    large, small = [b"0" * 60_000] * 5, [b"1" * 60_000]
    taken = 0

    def count() -> None:
        nonlocal taken
        taken += 1

    async def upload() -> None:
        room = Turns(1)
        async with server_uploads.body(request_of(large), room) as first:
            assert first == b"".join(large)
            second = asyncio.create_task(anext(aiter_of(request_of(large, count), room)))
            async with server_uploads.body(request_of(small), room) as other:
                assert other == b"".join(small)
            await asyncio.sleep(0.05)
            assert taken == 2  # parts, up to which no room is needed
        assert await second == b"".join(large)
        assert taken == len(large)

    async def aiter_of(request: Request, room: Turns) -> Any:
        async with server_uploads.body(request, room) as data:
            yield data

    asyncio.run(upload())
