"""Search results as one HTML file with thumbnails, that loads nothing from elsewhere."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from ..images.decoding import data_url, is_below, thumbnail
from ..index.strings import as_text

_SIZE = 288


def result_page(query: Path | str, folder: Path, results: Iterable[tuple[str, float]], compared: str) -> str:
    """The page.

    Args:
        query: image, or sentence, that was asked with.
        folder: where the images are.
        results: paths in it with their distances, nearest first.
        compared: what the distances are of, in words.
    """
    items = "\n".join(
        f'<li><figure><img src="{data_url(_found(folder, name))}" alt="" loading="lazy">'
        f"<figcaption>{_text(name)} <span>{distance:g}</span></figcaption></figure></li>"
        for name, distance in results
    )
    template = Template(files("nestkala").joinpath("pages/results.html").read_text(encoding="utf-8"))
    subtitle = f"nearest images first, with their distances: {compared}"
    picture = f'<img src="{data_url(thumbnail(query, _SIZE))}" alt="">' if isinstance(query, Path) else ""
    title = _text(query.name if isinstance(query, Path) else query)
    return template.substitute(title=title, subtitle=_text(subtitle), picture=picture, results=items)


def _found(folder: Path, name: str) -> bytes | None:
    return thumbnail(folder / name, _SIZE) if is_below(name) else None


def _text(name: str) -> str:
    return escape(as_text(name))
