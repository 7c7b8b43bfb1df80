"""The web page in a real browser: upload, slider, sentence, switch, keyboard, what is no image, markup in names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import serving
from starlette.testclient import TestClient

from nestkala import Hasher
from nestkala.codes import hamming
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder
from nestkala.search.provenance import about_model
from nestkala.server.app import make_app

MARKUP = "<img src=x onerror=document.title='hacked'>.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "photos"
    folder.mkdir()
    for number, name in enumerate([*(f"{n}.png" for n in range(30)), MARKUP]):
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / name)
    (folder.parent / "fake.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def hasher(noise_model: Path) -> Hasher:
    return Hasher.from_pretrained(noise_model, "cpu")


@pytest.fixture(scope="module")
def address(photos: Path, hasher: Hasher, noise_model: Path) -> Iterator[str]:
    index = PrefixIndex.empty(20, about_model(hasher, str(noise_model)))
    update_from_folder(index, photos, hasher)
    with serving(make_app(index, hasher, photos)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    opened = browser.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: request.url.startswith((address, "blob:")) or wrong.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert not wrong


def shown(page: Any) -> list[tuple[str, int]]:
    captions = page.locator("#results figcaption").all_inner_texts()
    return [(name, int(distance)) for name, _, distance in (caption.rpartition(" ") for caption in captions)]


def said(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for(timeout=300_000)


def distances(hasher: Hasher, query: np.ndarray, photos: Path, found: list[tuple[str, int]], bits: int) -> list[int]:
    return hamming(query, hasher.encode([photos / name for name, _ in found]), bits)[0].tolist()


def test_an_image_is_searched_and_the_slider_chooses_the_length(page: Any, photos: Path, hasher: Hasher) -> None:
    page.set_input_files("#file", photos / "3.png")
    said(page, "24 nearest by 20 bits, found in")
    query, found = hasher.encode(photos / "3.png"), shown(page)
    assert found[0] == ("3.png", 0)
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)
    page.locator("#bits").focus()
    for _ in range(13):  # by the keyboard alone
        page.keyboard.press("ArrowLeft")
    said(page, "24 nearest by 7 bits, found in")
    assert page.locator("#shown").inner_text() == "7 bits"
    assert page.locator("#bits").get_attribute("aria-valuetext") == "7 bits"
    found = shown(page)
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 7)
    page.locator("#fine").check()
    said(page, "24 nearest by 7 bits, then by all, found in")
    found = shown(page)
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)
    while not page.evaluate("[...document.querySelectorAll('#results img')].every(i => i.complete && i.naturalWidth)"):
        page.wait_for_timeout(50)  # polled here: the page's policy forbids the browser's own polling


def test_the_slider_begins_at_the_whole_code_however_long(browser: Any, hasher: Hasher, photos: Path) -> None:
    index = PrefixIndex.build(np.zeros((3, 32), np.uint8))
    html = TestClient(make_app(index, hasher, photos)).get("/").text
    page = browser.new_page()
    page.set_content(html)
    assert page.locator("#shown").inner_text() == "256 bits"
    page.locator("#bits").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#shown").inner_text() == "255 bits"
    page.keyboard.press("Home")
    assert page.locator("#shown").inner_text() == "4 bits"
    page.close()


def test_a_sentence_is_searched(page: Any, photos: Path, hasher: Hasher) -> None:
    page.fill("#text", "a photo of a dog.")
    page.keyboard.press("Enter")
    said(page, "24 nearest by 20 bits")
    found = shown(page)
    query = hasher.encode_text("a photo of a dog.")
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)


def test_what_is_no_image_is_told_and_the_next_one_works(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos.parent / "fake.png")
    said(page, "this is no image that can be read")
    assert shown(page) == []
    page.set_input_files("#file", photos / "5.png")
    said(page, "24 nearest")
    assert ("5.png", 0) in shown(page)


def test_markup_in_a_file_name_stays_text(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos / MARKUP)
    said(page, "24 nearest")
    assert shown(page)[0] == (MARKUP, 0)
    assert page.title() == "Search 31 images"
    assert page.locator("#results img").count() == 24


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    browser: Any, address: str, photos: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    page.set_input_files("#file", photos / "3.png")
    said(page, "24 nearest")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")
    page.close()
