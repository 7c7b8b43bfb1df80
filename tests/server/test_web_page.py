"""The web page in a real browser: what is asked, shown, marked, enlarged and gone through by the keyboard alone."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Error as BrowserError
from serving import serving

from nestkala import Hasher
from nestkala.codes import hamming, unpack
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder
from nestkala.search.provenance import about_model
from nestkala.server.app import make_app

MARKUP = "<img src=x onerror=document.title='hacked'>.png"
NAMES = [*(f"{n}.png" for n in range(60)), "summer_2019/lake_at_night.png", MARKUP]
PAGE = 48
"""Results that are shown at first."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "photos"
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 64)).save(folder / name)
    (folder.parent / "fake.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def hasher(noise_model: Path) -> Hasher:
    return Hasher.from_pretrained(noise_model, "cpu")


@pytest.fixture(scope="module")
def index(photos: Path, hasher: Hasher, noise_model: Path) -> PrefixIndex:
    made = PrefixIndex.empty(20, about_model(hasher, str(noise_model)))
    update_from_folder(made, photos, hasher)
    return made


@pytest.fixture(scope="module")
def address(photos: Path, hasher: Hasher, index: PrefixIndex) -> Iterator[str]:
    with serving(make_app(index, hasher, photos, originals=True)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages, of which none may print an error, fail, or ask another server."""
    wrong, contexts = list[str](), list[Any]()

    def opened(address: str, **context: Any) -> Any:
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.text.startswith("Failed to load resource") or wrong.append(said.text))
        page.on("request", lambda request: request.url.startswith((address, "blob:")) or wrong.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def page(visit: Callable[..., Any], address: str) -> Any:
    opened = visit(address)
    said(opened, "62 photographs")
    return opened


def shown(page: Any) -> list[tuple[str, str]]:
    """Names and distances."""
    cards = "all => all.map(one => ['.name', '.far'].map(part => one.querySelector(part).textContent))"
    return [(name, far) for name, far in page.locator("#results .card").evaluate_all(cards)]


def names(page: Any) -> list[str]:
    return [name for name, _ in shown(page)]


def said(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for(timeout=300_000)


def noticed(page: Any, text: str) -> None:
    page.locator("#message", has_text=text).wait_for(timeout=300_000)


def answered(page: Any) -> None:
    """Wait until what is shown is what was asked for last."""
    until(page, "document.getElementById('results').ariaBusy === 'false'")


def until(page: Any, condition: str) -> None:
    for _ in range(6_000):  # polled here: the page's policy forbids the browser's own polling
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not so for minutes: {condition}")


def focused(page: Any) -> str:
    """The name on the card that has the focus, or the id of what has it."""
    return str(page.evaluate("document.activeElement.querySelector('.name')?.textContent ?? document.activeElement.id"))


def viewed(page: Any, name: str) -> None:
    """Wait until the photograph of this name is enlarged and loaded."""
    page.locator("#viewer[open] #viewed", has_text=name).wait_for(timeout=300_000)
    until(page, "document.getElementById('large').src.includes('/photograph/')")
    until(page, "document.getElementById('large').naturalWidth > 0")


def type_query(page: Any, text: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    answered(page)


def distances(hasher: Hasher, query: np.ndarray, photos: Path, found: list[tuple[str, str]], bits: int) -> list[str]:
    return list(map(str, hamming(query, hasher.encode([photos / name for name, _ in found]), bits)[0]))


def test_the_first_look_shows_photographs_from_all_over(page: Any) -> None:
    assert len(set(names(page)) & set(NAMES)) == PAGE
    assert {far for _, far in shown(page)} == {""}
    page.locator("#more").click()
    until(page, "document.querySelectorAll('.card').length > 48")
    assert sorted(names(page)) == sorted(NAMES)
    assert page.locator("#more").is_hidden()


def test_an_image_is_searched_and_the_slider_chooses_the_length(page: Any, photos: Path, hasher: Hasher) -> None:
    page.set_input_files("#file", photos / "3.png")
    said(page, "48 nearest of 62 · 20 bits")
    query, found = hasher.encode(photos / "3.png"), shown(page)
    assert found[0] == ("3.png", "0")
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)
    before = set(names(page))
    page.locator("#bits").focus()
    for _ in range(12):  # by the keyboard alone
        page.keyboard.press("ArrowLeft")
    said(page, "48 nearest of 62 · 8 of 20 bits")
    before = set(names(page))
    page.keyboard.press("ArrowLeft")
    said(page, "48 nearest of 62 · 7 of 20 bits")
    assert page.locator("#shown").inner_text() == "7 bits"
    assert page.locator("#bits").get_attribute("aria-valuetext") == "7 bits"
    found = shown(page)
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 7)
    fresh = set(names(page)) - before
    assert set(page.locator(".card.new .name").all_text_contents()) == fresh
    assert page.locator("#status .changed").all_inner_texts() == [f"{len(fresh)} new, {len(fresh)} gone"] * bool(fresh)
    page.locator("#fine").check()
    said(page, "48 nearest of 62 · 7 of 20 bits, then all")
    found = shown(page)
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)
    until(page, "[...document.querySelectorAll('#results img')].every(i => i.complete && i.naturalWidth)")


def test_the_slider_marks_what_is_new_since_it_was_taken(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos / "3.png")
    said(page, "nearest of 62 · 20 bits")
    before, box = set(names(page)), page.locator("#bits").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(1, 17):
        page.mouse.move(box["x"] + (box["width"] - 8) * (1 - step / 16) + 4, box["y"] + box["height"] / 2)
    page.mouse.up()
    said(page, "nearest of 62 · 4 of 20 bits")
    fresh = set(names(page)) - before
    assert fresh
    assert set(page.locator(".card.new .name").all_text_contents()) == fresh
    assert page.locator("#status .changed").inner_text() == f"{len(fresh)} new, {len(before - set(names(page)))} gone"
    type_query(page, "a photo of a dog.")  # another query marks nothing
    assert page.locator(".card.new").count() == 0


def test_an_older_answer_never_replaces_a_newer_one(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos / "3.png")
    said(page, "20 bits")
    held: list[Any] = []
    page.route("**/search?*bits=5&*", lambda route: held.append(route))
    page.locator("#bits").focus()
    page.keyboard.press("Home")
    said(page, "4 of 20 bits")
    page.keyboard.press("ArrowRight")
    while not held:
        page.wait_for_timeout(20)
    page.keyboard.press("ArrowRight")
    said(page, "6 of 20 bits")
    at_six = shown(page)
    for route in held:
        with suppress(BrowserError):  # given up by the page
            route.continue_()
    page.wait_for_timeout(300)
    assert shown(page) == at_six
    assert page.locator("#status").inner_text().startswith("48 nearest of 62 · 6 of 20 bits")


def test_the_slider_begins_at_the_whole_code_however_long(
    visit: Callable[..., Any], hasher: Hasher, photos: Path
) -> None:
    with serving(make_app(PrefixIndex.build(np.zeros((3, 32), np.uint8)), hasher, photos)) as port:
        page = visit(f"http://127.0.0.1:{port}")
        said(page, "3 photographs")
        assert page.locator("#shown").inner_text() == "256 bits"
        page.locator("#bits").focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#shown").inner_text() == "255 bits"
        page.keyboard.press("Home")
        assert page.locator("#shown").inner_text() == "4 bits"
        page.locator(".gone:visible").nth(2).wait_for()  # files that are not there: no broken icons
        assert page.locator("#results img:visible").count() == 0


def test_a_sentence_is_searched(page: Any, photos: Path, hasher: Hasher) -> None:
    type_query(page, "a photo of a dog.")
    said(page, "48 nearest")
    found = shown(page)
    query = hasher.encode_text("a photo of a dog.")
    assert [distance for _, distance in found] == distances(hasher, query, photos, found, 20)


def test_a_sentence_an_image_and_what_is_not_wanted_are_searched_together(
    page: Any, photos: Path, hasher: Hasher
) -> None:
    page.set_input_files("#file", photos / "3.png")
    said(page, "48 nearest")
    page.fill("#text", "a dog")
    page.fill("#not", "a cat")
    page.keyboard.press("Enter")
    until(page, "location.search.includes('q=a+dog') && location.search.includes('not=a+cat')")
    until(page, "document.querySelector('.far').title.startsWith('distance')")
    wanted = [hasher.encode(photos / "3.png"), hasher.encode_text("a dog")]
    mixed = sum(unpack(code, 20) for code in wanted) - 0.5 * unpack(hasher.encode_text("a cat"), 20)
    codes = unpack(hasher.encode([photos / name for name in names(page)]), 20)
    costs = (np.abs(mixed) * (codes * mixed < 0)).sum(axis=1)
    assert [float(far) for _, far in shown(page)] == costs.tolist() == sorted(costs.tolist())
    page.locator(".chip button").click()  # the image is taken away again
    until(page, "!location.search.includes('code=')")
    assert page.locator(".chip").count() == 0
    assert page.input_value("#text") == "a dog"


def test_what_is_not_wanted_alone_is_no_search(page: Any) -> None:
    page.fill("#not", "a cat")
    page.keyboard.press("Enter")
    noticed(page, "Also say what the photographs should show")
    assert names(page) == []


def test_the_keyboard_leads_everywhere(page: Any) -> None:
    order = names(page)
    page.keyboard.press("/")
    assert focused(page) == "text"
    page.keyboard.press("ArrowDown")
    assert focused(page) == order[0]
    across = "all => all.filter(one => one.offsetTop === all[0].offsetTop).length"
    columns = page.locator("#results .card").evaluate_all(across)
    assert columns > 3
    for key, place in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowLeft", columns), ("ArrowUp", 0)):
        page.keyboard.press(key)
        assert focused(page) == order[place]
    outline = page.evaluate("getComputedStyle(document.activeElement.querySelector('.frame')).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("End")
    assert focused(page) == order[-1]
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    viewed(page, order[0])
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    viewed(page, order[2])
    page.keyboard.press("ArrowLeft")
    viewed(page, order[1])
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('viewer').open")
    assert focused(page) == order[1]
    page.keyboard.press("ArrowUp")
    assert focused(page) == "text"


def test_the_enlarged_photograph_says_what_it_is(page: Any) -> None:
    type_query(page, "a photo of a dog.")
    said(page, "48 nearest")
    name, far = shown(page)[0]
    page.locator(".card").first.click()
    viewed(page, name)
    page.locator("#facts", has_text="96 \u00d7 64").wait_for()
    facts = page.locator("#facts").inner_text()
    assert facts.startswith("saved ")
    assert facts.endswith(f"{far} bit differs" if far == "1" else f"{far} bits differ")
    assert page.locator("#place").inner_text() == "1 of 48+"
    with page.expect_download() as download:
        page.locator("#original").click()
    assert download.value.suggested_filename == Path(name).name
    page.go_back()
    until(page, "!document.getElementById('viewer').open")
    assert "q=a+photo" in page.url
    page.locator(".card").nth(PAGE - 1).click()
    viewed(page, names(page)[PAGE - 1])
    page.keyboard.press("ArrowRight")  # beyond those that were shown
    until(page, "document.querySelectorAll('.card').length > 48")
    viewed(page, names(page)[PAGE])


def test_more_like_this(page: Any, hasher: Hasher, photos: Path) -> None:
    page.locator(".card").nth(4).click()
    name = names(page)[4]
    viewed(page, name)
    page.locator("#like").click()
    said(page, "48 nearest")
    assert not page.locator("#viewer[open]").count()
    found = shown(page)
    assert (name, "0") in found
    assert [d for _, d in found] == distances(hasher, hasher.encode(photos / name), photos, found, 20)
    assert page.locator(".chip .name").inner_text() == Path(name).name
    other = names(page)[9]
    page.locator(".card").nth(9).focus()
    page.keyboard.press("m")
    page.locator(f'.chip[title="{other}"]').wait_for()
    answered(page)
    assert page.url.endswith(f"?like={other}")
    assert (other, "0") in shown(page)
    third = names(page)[5]
    page.locator(".card").nth(5).click()
    page.keyboard.press("Shift+M")  # as well
    until(page, "document.querySelectorAll('.chip').length === 2")
    page.locator(f'.chip[title="{third}"]').wait_for()


def test_the_address_can_be_kept_and_gone_back_to(
    page: Any, visit: Callable[..., Any], address: str, photos: Path
) -> None:
    type_query(page, "a photo of a dog.")
    said(page, "48 nearest")
    page.locator("#bits").focus()
    page.keyboard.press("ArrowLeft")
    said(page, "19 of 20 bits")
    by_text = shown(page)
    page.locator(".card").nth(3).focus()
    page.keyboard.press("m")
    until(page, "location.search.startsWith('?like=')")
    said(page, "19 of 20 bits")
    until(page, "document.querySelector('.far').textContent === '0'")
    by_image, like = shown(page), page.url
    page.set_input_files("#file", photos / "3.png")
    until(page, "location.search.startsWith('?code=')")
    until(page, "document.querySelector('.chip .name').textContent === '3.png'")
    page.go_back()
    until(page, "location.search.startsWith('?like=')")
    answered(page)
    assert shown(page) == by_image
    page.go_back()
    until(page, "location.search.startsWith('?q=')")
    answered(page)
    assert shown(page) == by_text
    assert page.input_value("#text") == "a photo of a dog."
    other = visit(address)
    other.goto(like)
    said(other, "19 of 20 bits")
    assert shown(other) == by_image


def test_dropping_and_pasting_a_photograph_search_with_it(page: Any, photos: Path) -> None:
    send = """([kind, bytes]) => {
        const carried = new DataTransfer();
        carried.items.add(new File([new Uint8Array(bytes)], 'sent.png', { type: 'image/png' }));
        const details = { bubbles: true, cancelable: true, dataTransfer: carried, clipboardData: carried };
        const sent = kind === 'paste' ? new ClipboardEvent(kind, details) : new DragEvent(kind, details);
        document.body.dispatchEvent(sent);
    }"""
    for kind, name in (("drop", "5.png"), ("paste", "6.png")):
        page.evaluate(send, [kind, list((photos / name).read_bytes())])
        cards = f"[...document.querySelectorAll('.card')].filter(one => one.title === '{name}')"
        until(page, f"document.querySelector('.chip .name')?.textContent === 'sent.png' && {cards}.some("
              "one => one.querySelector('.far').textContent === '0')")  # fmt: skip
        assert page.locator("#drop").is_hidden()


def test_what_is_no_image_is_told_and_the_next_one_works(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos.parent / "fake.png")
    noticed(page, "This is not an image in a supported format")
    assert shown(page) == []
    assert page.locator("#more").is_hidden()
    assert page.locator(".chip img:visible").count() == 0  # no broken icon
    page.set_input_files("#file", photos / "5.png")
    said(page, "48 nearest")
    assert page.locator("#notice").is_hidden()
    assert ("5.png", "0") in shown(page)


def test_too_large_an_upload_is_told_before_it_is_sent(page: Any) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.set_input_files("#file", {"name": "large.png", "mimeType": "image/png", "buffer": bytes(20_000_001)})
    noticed(page, "The image is larger than 20 MB.")
    assert "POST" not in sent


def test_a_file_that_is_gone_leaves_a_quiet_note(visit: Callable[..., Any], address: str, photos: Path) -> None:
    page = visit(address)
    said(page, "62 photographs")
    gone = names(page)[1]
    data = (photos / gone).read_bytes()
    (photos / gone).unlink()
    try:
        page = visit(address)  # which has nothing in its cache
        said(page, "62 photographs")
        page.locator(".card").nth(1).locator(".gone").wait_for()
        assert page.locator(".card").nth(1).locator("img").is_hidden()
        page.locator(".card").nth(1).click()
        page.locator("#broken", has_text="no longer exists").wait_for()
        assert page.locator("#large").is_hidden()
        page.keyboard.press("ArrowRight")
        viewed(page, names(page)[2])
        assert page.locator("#broken").is_hidden()
    finally:
        (photos / gone).write_bytes(data)


def test_a_server_that_is_gone_is_told_and_tried_again(
    visit: Callable[..., Any], index: PrefixIndex, hasher: Hasher, photos: Path
) -> None:
    with serving(make_app(index, hasher, photos)) as port:
        page = visit(f"http://127.0.0.1:{port}")
        said(page, "62 photographs")
        page.context.set_offline(True)
        type_query(page, "a photo of a dog.")
        noticed(page, "The server is not responding. Is nestkala serve still running?")
        assert names(page) == []
        page.context.set_offline(False)
        page.locator("#again").click()
        said(page, "48 nearest")
        assert page.locator("#notice").is_hidden()


def test_an_empty_index_says_so(visit: Callable[..., Any], hasher: Hasher, photos: Path) -> None:
    with serving(make_app(PrefixIndex.empty(20), hasher, photos)) as port:
        page = visit(f"http://127.0.0.1:{port}")
        noticed(page, "There are no photographs in this index yet.")
        type_query(page, "a photo of a dog.")
        until(page, "location.search.startsWith('?q=')")
        noticed(page, "There are no photographs in this index yet.")


def test_a_class_shows_its_images_alone(page: Any, photos: Path, hasher: Hasher) -> None:
    chips = page.locator("#classes button")
    chips.first.wait_for()
    codes = unpack(hasher.encode([photos / name for name in NAMES]), 20)
    nearest = (codes @ unpack(hasher.class_codes(), 20).T).argmax(axis=1)
    kinds = {kind: {name for name, at in zip(NAMES, nearest, strict=True) if at == n} for n, kind in enumerate("ab")}
    expected = {kind: len(members) for kind, members in kinds.items() if members}
    assert {chip.get_attribute("value"): int(chip.locator("small").inner_text()) for chip in chips.all()} == expected
    kind = min(expected, key=expected.__getitem__)
    page.locator(f"#classes button[value={kind}]").click()
    said(page, f"in {kind}")
    assert set(names(page)) == kinds[kind] or len(names(page)) == PAGE
    assert set(names(page)) <= kinds[kind]
    type_query(page, "a photo of a dog.")
    assert page.url.endswith(f"?q=a+photo+of+a+dog.&class={kind}")
    assert set(names(page)) <= kinds[kind]
    page.locator(f"#classes button[value={kind}]").click()
    said(page, "48 nearest of 62")
    assert "class" not in page.url


def test_a_filter_narrows_what_is_found(page: Any) -> None:
    page.fill("#where", "folder=summer_2019 and size>=1")
    page.keyboard.press("Enter")
    said(page, "1 photograph, filtered")
    page.fill("#text", "a photo of a dog.")
    page.keyboard.press("Enter")
    said(page, "1 nearest of 62, filtered")
    assert names(page) == ["summer_2019/lake_at_night.png"]
    assert "where=folder%3Dsummer_2019+and+size%3E%3D1" in page.url
    page.fill("#where", "folder=none")
    page.keyboard.press("Enter")
    noticed(page, "No photographs match the filter.")
    page.fill("#where", "summer")
    page.keyboard.press("Enter")
    noticed(page, "A condition must look like folder=2019")


def test_markup_in_a_file_name_stays_text(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos / MARKUP)
    said(page, "48 nearest")
    assert (MARKUP, "0") in shown(page)
    page.locator(".card", has_text="onerror").click()
    viewed(page, MARKUP)
    assert page.title() == "Search 62 images"
    assert page.locator("#results img").count() == PAGE


def test_a_screen_reader_finds_its_way(page: Any) -> None:
    assert page.get_by_role("search").count() == 1
    assert page.get_by_role("status").inner_text().startswith("A selection of 62 photographs")
    assert page.get_by_role("list", name="Photographs").get_by_role("button").count() == PAGE
    page.get_by_role("searchbox", name="What the photographs should show").fill("a photo of a dog.")
    page.get_by_role("button", name="Search", exact=True).click()
    said(page, "48 nearest")
    name, far = shown(page)[2]
    page.get_by_role("button", name=f"{name}, {far} bit{'' if far == '1' else 's'} differ", exact=False).first.click()
    dialog = page.get_by_role("dialog", name=name)
    dialog.wait_for()
    for button in ("Close", "Next photograph", "Previous photograph", "More like this", "Add to search"):
        assert dialog.get_by_role("button", name=button).count() == 1
    is_unnamed = "!one.textContent.trim() && !one.ariaLabel && !one.labels?.length"
    unnamed = f"all => all.filter(one => {is_unnamed}).map(one => one.id)"
    assert page.locator("button, input, a").evaluate_all(unnamed) == []


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (1280, 900)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    visit: Callable[..., Any], address: str, photos: Path, width: int, height: int, scheme: str
) -> None:
    phone = {"is_mobile": width < 400, "has_touch": width < 400}
    page = visit(address, viewport={"width": width, "height": height}, color_scheme=scheme, **phone)
    page.set_input_files("#file", photos / "summer_2019/lake_at_night.png")
    said(page, "48 nearest")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.getElementById('results').clientWidth") >= 0.9 * width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(17, 20, 19)")
    small = """all => all.filter(one => one.offsetParent && !one.closest('.chip'))
        .map(one => one.closest('.fine') ?? one)
        .filter(one => Math.min(one.getBoundingClientRect().height, one.getBoundingClientRect().width) < 44)
        .map(one => one.id)"""
    assert width > 400 or page.locator("button, input:not([type=file])").evaluate_all(small) == []
    page.locator(".card").first.click()
    viewed(page, names(page)[0])
    until(page, "document.getElementById('large').style.getPropertyValue('--width') !== ''")  # its size is known
    assert page.evaluate("document.getElementById('viewer').scrollWidth") <= width
    box, stage = page.locator("#large").bounding_box(), page.locator("#stage").bounding_box()
    assert box["width"] <= min(stage["width"], 192)  # twice its own size at most
    assert page.locator("#like").bounding_box()["y"] < height


def test_who_wants_no_motion_sees_none(visit: Callable[..., Any], address: str, photos: Path) -> None:
    page = visit(address, reduced_motion="reduce")
    page.set_input_files("#file", photos / "3.png")
    said(page, "48 nearest")
    page.locator("#bits").focus()
    page.keyboard.press("Home")
    said(page, "4 of 20 bits")
    assert page.evaluate("document.getAnimations().length") == 0
