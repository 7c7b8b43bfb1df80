"""The web page's server: what it answers, and what it refuses."""

import asyncio
import socket
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
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
from nestkala.codes import hamming
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


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self' blob:; connect-src 'self'")
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert f'<script nonce="{nonce}">' in answer.text
    assert nonce not in client.get("/").text
    assert "://" not in answer.text
    assert f"lengths = {list(range(4, 21))}" in answer.text
    assert "${results.length}" in answer.text


def png(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 415, "this is no image that can be read"),
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
        ("/search?code=000000&k=9&shortlist=8", "shortlist must be k, 9, or more, not 8"),
        ("/search?code=000000&k=9&shortlist=-8", "shortlist must be"),
        ("/search?code=000000&shortlist=10001", "shortlist must be 10000 at most, not 10001"),
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
    with serving(server.make_app(index, hasher_of(index), folders_of(index), own_names("127.0.0.1"))) as port:
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

    app = server.make_app(index, SimpleNamespace(encode_text=fail), photos)  # type: ignore[arg-type]
    answer = TestClient(app, raise_server_exceptions=False).get("/encode?text=a")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server failed at this; what it printed says why"}


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

    app = server.make_app(index, SimpleNamespace(encode=encode, encode_text=encode_text), photos)  # type: ignore[arg-type]
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
