"""Pages of HTML, and how they are filled."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..index.strings import as_text


def render(page: str, **values: Any) -> str:
    """A page of this folder, filled. What is no `Markup` is escaped, and of names of files what is no text replaced."""
    environment = Environment(
        loader=PackageLoader("nestkala", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: as_text(value) if type(value) is str else value,
    )
    return environment.get_template(page).render(values)
