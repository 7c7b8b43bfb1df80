"""Names that are markup stay text in every page, even in a browser that minds no policy of the page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import serving

from nestkala import Hasher
from nestkala.index import PrefixIndex
from nestkala.report import write_report
from nestkala.search.result_page import Section, result_page
from nestkala.server.app import make_app
from nestkala.settings.config import Config
from nestkala.training.run import train

HACK = "document.title='hacked'"
NAMES = [
    f"<img src=x onerror={HACK}>",
    f'"onerror="{HACK}',
    f"' onload='{HACK}",
    f'"><svg onload={HACK}>',
    f"</script><script>{HACK}</script>",
    f"</figcaption></title></style><script>{HACK}</script>",
    f"<iframe srcdoc='<script>parent.{HACK}</script>'>",
    f"javascript:{HACK}",
    f"--><script>{HACK}</script>",
    f"]]><script>{HACK}</script>",
    f"${{{HACK}}}",
    "$title $results",
    "&lt;b&gt;&quot;",
    "two\nlines",
]
POLICY = "meta[http-equiv=Content-Security-Policy][content^=\"default-src 'none'; img-src data:\"]"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("markup") / f"<img src=x onerror={HACK}>"
    for number, name in enumerate(NAMES):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return folder


@pytest.fixture(scope="module")
def address(photos: Path, noise_model: Path) -> Iterator[str]:
    hasher = Hasher.from_pretrained(noise_model, "cpu")
    ids = [f"{name}.png" for name in NAMES]
    index = PrefixIndex.build(hasher.encode([photos / name for name in ids]), ids, bits=20)
    with serving(make_app(index, hasher, photos)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def page(browser: Any) -> Any:
    """That heeds no Content-Security-Policy."""
    return browser.new_context(bypass_csp=True).new_page()


def nothing_ran(page: Any, scripts: int = 0) -> bool:
    page.wait_for_timeout(200)
    handlers = page.evaluate(
        "[...document.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length"
    )
    strangers = page.locator("script").count() - scripts + page.locator("iframe").count()
    return page.title() != "hacked" and handlers == strangers == 0


def test_such_names_would_run(page: Any) -> None:
    page.set_content(f"<title>page</title><p>{NAMES[0]}</p>")
    page.wait_for_function("document.title == 'hacked'", timeout=300_000)
    assert not nothing_ran(page)
    assert page.title() == "hacked"


def test_a_page_of_results_shows_them(page: Any, photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.html"
    for query in (photos / f"{NAMES[0]}.png", NAMES[5]):
        section = Section(query, [(f"{name}.png", 1) for name in NAMES])
        file.write_text(result_page([section], photos, NAMES[1]), encoding="utf-8")
        page.goto(file.as_uri())
        assert nothing_ran(page)
        shown = page.locator("figcaption").all_text_contents()
        assert shown == [f"{name}.png 1" for name in NAMES]
        assert page.locator(POLICY).count() == 1
        assert page.locator("h1").text_content() in (f"{NAMES[0]}.png", NAMES[5])


def test_the_served_page_shows_them(page: Any, address: str, photos: Path) -> None:
    page.goto(address)
    page.set_input_files("#file", photos / f"{NAMES[0]}.png")
    page.locator("#status", has_text="nearest of").wait_for(timeout=300_000)
    assert nothing_ran(page, scripts=1)
    shown = page.locator("#results .name").all_text_contents()
    assert sorted(shown) == sorted(f"{name}.png" for name in NAMES)
    page.locator("#results .card").first.click()
    for name in shown:
        page.locator("#place", has_text=f"{shown.index(name) + 1} of").wait_for()
        assert page.locator("#viewed").text_content() == name
        page.keyboard.press("ArrowRight")
    page.locator("#like").click()
    page.locator(".chip").wait_for()
    assert nothing_ran(page, scripts=1)


def test_a_report_shows_class_names_and_run_names(page: Any, tmp_path: Path) -> None:
    classes, data = [name for name in NAMES if "\n" not in name], tmp_path / "lists"
    data.mkdir()
    rng, lines = np.random.default_rng(0), list[str]()
    for number in range(4 * len(classes)):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(data / f"{number}.png")
        lines.append(" ".join([f"{number}.png", *(str(int(c == number // 4)) for c in range(len(classes)))]))
    (data / "classnames.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    (data / "database.txt").write_text("\n".join(lines) + "\n")
    own = {"data": str(data), "output": tmp_path / f"<img src=x onerror={HACK}>", "anchors": "orthonormal"}
    small = {"queries_per_class": 1, "shots": 1, "lengths": (4, 8), "epochs": 1, "workers": 0, "cache_gb": 0}
    page.goto(write_report([train(Config(**{**own, **small}))]).as_uri())
    assert nothing_ran(page)
    assert page.locator(POLICY).count() == 1
    assert page.locator("h1").text_content() == own["output"].name
    shown = set(page.locator("figcaption, figcaption span").all_text_contents())
    assert len(shown & set(classes)) >= 6  # queries, one of a class
    alternatives = page.locator("article img").evaluate_all("all => all.map(one => one.alt.replace(/^[a-z]+: /, ''))")
    assert set(alternatives) <= set(classes)
