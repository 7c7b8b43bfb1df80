"""Search results as one HTML file with thumbnails, that loads nothing from elsewhere."""

from collections.abc import Iterable
from pathlib import Path

from ..images.decoding import data_url, is_below, thumbnail
from ..pages import render

_SIZE = 288


def result_page(query: Path | str, folder: Path, results: Iterable[tuple[str, float]], compared: str) -> str:
    """The page.

    Args:
        query: image, or sentence, that was asked with.
        folder: where the images are.
        results: paths in it with their distances, nearest first.
        compared: what the distances are of, in words.
    """
    asked = query.name if isinstance(query, Path) else query
    return render(
        "results.html",
        title=asked,
        subtitle=f"nearest images first, with their distances: {compared}",
        picture=data_url(thumbnail(query, _SIZE)) if isinstance(query, Path) else None,
        results=[(data_url(_found(folder, name)), name, f"{distance:g}") for name, distance in results],
    )


def _found(folder: Path, name: str) -> bytes | None:
    return thumbnail(folder / name, _SIZE) if is_below(name) else None
