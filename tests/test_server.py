"""The web page's server: what it answers, and what it refuses."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nestkala import Hasher, server
from nestkala.codes import hamming
from nestkala.index import PrefixIndex
from nestkala.index.folder import update_from_folder
from nestkala.index.model import about_model

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


def test_coarse_to_fine_ends_with_all_bits(client: TestClient, photos: Path) -> None:
    code = code_of(client, (photos / "3.png").read_bytes())
    fine = client.get("/search", params={"code": code, "bits": 2, "k": 5, "shortlist": 17}).json()["results"]
    assert fine == client.get("/search", params={"code": code, "bits": 20, "k": 5}).json()["results"]


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
        (b"", 400, "this is no image that can be read"),
        (b"no image", 400, "this is no image that can be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 400, "this is no image that can be read"),
        (png(60, 60)[:50], 400, "image"),
        (png(8000, 8000), 400, "the image has more than 50 million pixels"),
        (png(30000, 30000), 400, "image"),
        (b"\0" * 20_000_001, 413, "the image is larger than 20 MB"),
    ],
    ids=["empty", "text", "header", "cut", "large", "bomb", "long"],
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
