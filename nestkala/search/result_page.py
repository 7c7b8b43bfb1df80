"""Search results as one HTML file with thumbnails, that loads nothing from elsewhere; they open the images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from ..images.decoding import data_url, is_below, thumbnail
from ..index.strings import as_text

_SIZE = 288


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        title: in words, or the image that was asked with, which is shown.
        results: paths in the folder, each with a number to show beside it or None.
    """

    title: Path | str
    results: Iterable[tuple[str, float | None]]


def result_page(sections: Sequence[Section], folder: Path, compared: str) -> str:
    """The page of what queries found, nearest first.

    Args:
        sections: a query each, with distances.
        folder: where the images are.
        compared: what the distances are of, in words.
    """
    title = ", ".join(_title(section) for section in sections)
    return page_of(title, f"nearest images first, with their distances: {compared}", sections, folder)


def page_of(title: str, subtitle: str, sections: Sequence[Section], folder: Path) -> str:
    """A page of images in sections."""
    template = Template(files("nestkala").joinpath("pages/results.html").read_text(encoding="utf-8"))
    parts = "\n".join(_section(section, folder, subtitle) for section in sections)
    return template.substitute(title=_text(title), sections=parts or f"<p>{_text(subtitle)}</p>")


def _section(section: Section, folder: Path, subtitle: str) -> str:
    picture = ""
    if isinstance(section.title, Path):
        picture = f'<img src="{data_url(thumbnail(section.title, _SIZE))}" alt="">'
    items = "\n".join(_item(folder, name, number) for name, number in section.results)
    return (
        f"<header>{picture}<div><h1>{_text(_title(section))}</h1><p>{_text(subtitle)}</p></div></header>\n"
        f"<ol>\n{items}\n</ol>"
    )


def _item(folder: Path, name: str, number: float | None) -> str:
    shown = "" if number is None else f" <span>{number:g}</span>"
    picture = f'<img src="{data_url(_found(folder, name))}" alt="" loading="lazy">'
    if is_below(name):
        picture = f'<a href="{escape((folder.absolute() / name).as_uri())}">{picture}</a>'
    return f"<li><figure>{picture}<figcaption>{_text(name)}{shown}</figcaption></figure></li>"


def _title(section: Section) -> str:
    return section.title.name if isinstance(section.title, Path) else section.title


def _found(folder: Path, name: str) -> bytes | None:
    return thumbnail(folder / name, _SIZE) if is_below(name) else None


def _text(name: str) -> str:
    return escape(as_text(name))
