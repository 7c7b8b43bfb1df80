"""Draws the README's pictures: the web page, a page of results, the advice on lengths, and a report.

python scripts/pictures.py --run runs/RUN --index photos.index --query photos/query.jpg

Needs Chromium and `pip install "nestkala[test]"`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

import tyro
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from nestkala.analysis.advice import measure_lengths, recommend
from nestkala.analysis.plots import plot_lengths
from nestkala.report import write_report
from nestkala.search.opening import open_index
from nestkala.search.places import folders_of
from nestkala.search.provenance import hasher_of
from nestkala.search.result_page import Section, result_page
from nestkala.utils.files import replacing

BITS = 16


def main(
    index: str, query: Path, run: Path | None = None, output: Path = Path("docs/pictures"), min_map: float = 0.8
) -> None:
    """Write serve.jpg and serve_dark.jpg and, of a run, results.jpg, advise.png and report.jpg.

    Args:
        index: of images, for the pages.
        query: image that is searched with.
        run: run folder, for the advice and the report.
        output: folder to write to.
        min_map: quality that the recommended length is to have.
    """
    if run is not None:
        lengths = measure_lengths(run, progress=True)
        plot_lengths(lengths, recommend(lengths, min_map=min_map), output / "advise.png")
    opened = open_index(index)
    hasher = hasher_of(opened)
    hits = opened.search(hasher.encode(query), 20, BITS)
    page = result_page(
        [Section(query, zip(hits.ids[0], hits.distances[0].tolist(), strict=True))],
        folders_of(opened, index),
        f"the first {BITS} of {opened.bits} bits",
    )
    with chromium() as browser, served(index) as address:
        if run is not None:
            keep(_results(browser, page), output / "results.jpg")
            keep(_reported(browser, run), output / "report.jpg")
        for name, width, scheme in (("serve", 1000, "light"), ("serve_dark", 390, "dark")):
            keep(searched(browser, address, query, width, scheme), output / f"{name}.jpg")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser that draws."""
    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def _results(browser: Browser, html: str) -> bytes:
    page = browser.new_page(viewport={"width": 1000, "height": 620})
    page.set_content(html, wait_until="load")
    return page.screenshot()


def _reported(browser: Browser, run: Path) -> bytes:
    """The top of a report."""
    page = browser.new_page(viewport={"width": 1280, "height": 960}, device_scale_factor=0.8)
    with TemporaryDirectory() as folder:
        page.goto(write_report([run], Path(folder, "report"), progress=True).as_uri())
        return page.screenshot()


def searched(browser: Browser, address: str, query: Path, width: int, scheme: str) -> bytes:
    """The web page after a search at `BITS` bits."""
    size, is_phone = {"width": width, "height": 760}, width < 500
    page = browser.new_page(viewport=size, color_scheme=scheme, is_mobile=is_phone)  # type: ignore[arg-type]
    page.goto(address)
    page.set_input_files("#file", query)
    page.locator("#status", has_text="nearest").wait_for()
    page.locator("#bits").focus()
    while page.locator("#shown").inner_text() != f"{BITS} bits":
        page.keyboard.press("ArrowLeft")
    page.locator("#status", has_text=f"{BITS} of").wait_for()
    shown = "[...document.querySelectorAll('#results img')].filter(i => i.getBoundingClientRect().top < innerHeight)"
    while not page.evaluate(f"{shown}.every(i => i.complete && i.naturalWidth)"):
        page.wait_for_timeout(50)  # polled here: the page's policy forbids the browser's own polling
    page.locator("#bits").blur()
    page.wait_for_timeout(3000)  # until the frames of what is new have faded
    return page.screenshot()


@contextmanager
def served(index: str) -> Iterator[str]:
    """The address of `nestkala serve`."""
    command = [sys.executable, "-m", "nestkala", "serve", index, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield re.findall(r"http://\S+", server.stdout.readline())[0]
        server.terminate()


def keep(png: bytes, path: Path) -> None:
    """Write a picture of photographs as JPEG, which takes a quarter of the room."""
    with replacing(path) as temporary:
        Image.open(BytesIO(png)).convert("RGB").save(temporary, "JPEG", quality=90, optimize=True)


if __name__ == "__main__":
    tyro.cli(main)
