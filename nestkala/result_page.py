"""Search results as one HTML file with thumbnails, that loads nothing from elsewhere."""

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template

from .errors import NestKALAError
from .images import decode_image

_SIZE = 288
_NO_IMAGE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"


def result_page(query: Path | str, folder: Path, results: Iterable[tuple[str, float]], compared: str) -> str:
    """The page.

    Args:
        query: image, or sentence, that was asked with.
        folder: where the images are.
        results: paths in it with their distances, nearest first.
        compared: what the distances are of, in words.
    """
    items = "\n".join(
        f'<li><figure><img src="{_thumbnail(folder / name)}" alt="" loading="lazy">'
        f"<figcaption>{_text(name)} <span>{distance:g}</span></figcaption></figure></li>"
        for name, distance in results
    )
    template = Template(files("nestkala").joinpath("pages/results.html").read_text(encoding="utf-8"))
    subtitle = f"nearest images first, with their distances: {compared}"
    picture = f'<img src="{_thumbnail(query)}" alt="">' if isinstance(query, Path) else ""
    title = _text(query.name if isinstance(query, Path) else query)
    return template.substitute(title=title, subtitle=_text(subtitle), picture=picture, results=items)


def _text(name: str) -> str:
    """A name, which may be no text, for HTML."""
    return escape(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _thumbnail(path: Path) -> str:
    """A small JPEG as a data URL; an empty picture for what cannot be read any more."""
    try:
        image = decode_image(path.read_bytes(), str(path))
    except (NestKALAError, OSError):
        return _NO_IMAGE
    image.thumbnail((_SIZE, _SIZE))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"
