"""Search results as a self-contained HTML page of thumbnails that link to the images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..images.decoding import data_url, thumbnail
from ..pages import render
from .places import ImageFolders

_SIZE = 288


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Attributes:
        title: a text, or the query image, which is shown.
        results: paths in the folder, each with a number to show next to it, or None.
    """

    title: Path | str
    results: Iterable[tuple[str, float | None]]


def result_page(sections: Sequence[Section], folder: Path | ImageFolders, compared: str) -> str:
    """The results page of queries, nearest images first.

    Args:
        sections: one per query, with distances.
        folder: folder or folders of the images.
        compared: what the distances compare, in words.
    """
    title = ", ".join(_title(section) for section in sections)
    return page_of(title, f"nearest images first, with their distances: {compared}", sections, folder)


def page_of(title: str, subtitle: str, sections: Sequence[Section], folder: Path | ImageFolders) -> str:
    """A page of images in sections."""
    folders = ImageFolders.of(folder)
    shown = [
        {
            "title": _title(section),
            "picture": data_url(thumbnail(section.title, _SIZE)) if isinstance(section.title, Path) else None,
            "results": [_item(folders.file(name), name, number) for name, number in section.results],
        }
        for section in sections
    ]
    return render("results.html", title=title, subtitle=subtitle, sections=shown)


def _item(file: Path | None, name: str, number: float | None) -> dict[str, str | None]:
    return {
        "name": name,
        "image": data_url(None if file is None else thumbnail(file, _SIZE)),
        "link": None if file is None else file.absolute().as_uri(),
        "number": None if number is None else f"{number:g}",
    }


def _title(section: Section) -> str:
    return section.title.name if isinstance(section.title, Path) else section.title
