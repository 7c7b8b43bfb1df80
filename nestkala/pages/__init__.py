"""HTML pages and how to render them."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..index.strings import as_text


def render(page: str, **values: Any) -> str:
    """Render a page of this folder. Everything except `Markup` is escaped, and undecodable characters are replaced."""
    environment = Environment(
        loader=PackageLoader("nestkala", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: as_text(value) if type(value) is str else value,
    )
    return environment.get_template(page).render(values)
