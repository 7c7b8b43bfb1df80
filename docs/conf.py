"""Settings of the documentation: sphinx-build -W -b html docs docs/_build"""

import re
from typing import Any

import nestkala

project = "NestKALA"
author = "The NestKALA developers"
copyright = author
release = getattr(nestkala, "__version__", "")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "NestKALA"
html_static_path = ["static"]
html_css_files = ["site.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_inherit_docstrings = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
nitpicky = False

# On GitHub these pages lie above docs/, on the site beside the others.
PAGES_ABOVE = {
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "nestkala/pretrained/README.md": "backbones.md",
}


def prepare(_app: Any, *given: Any) -> None:
    """Lead links to the files above docs/ to their pages here, and keep 16.0 ± 0.4 on one line.

    The text is the only item of the last argument.
    """
    text = given[-1]
    for file, page in PAGES_ABOVE.items():
        text[0] = text[0].replace(f"](../{file})", f"]({page})").replace(f"]({file})", f"]({page})")
    text[0] = text[0].replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")


def _escaped(line: str) -> str:
    """A docstring's line, in which names are in single backticks, as reStructuredText."""
    code = re.split(r"(`[^`]+`)", line)
    code[::2] = [re.sub(r"([*|\\])", r"\\\1", plain) for plain in code[::2]]
    code[1::2] = [f"`{name}`" for name in code[1::2]]
    return "".join(code)


def as_restructured_text(_app: Any, _what: str, _name: str, _of: Any, _options: Any, lines: list[str]) -> None:
    """Turn a plain docstring into reStructuredText: formulas are literal, names are code, signs mean nothing."""
    found: list[str] = []
    literal = section = False
    for place, line in enumerate(lines):
        before = lines[place - 1] if place else ""
        if re.fullmatch(r"[A-Z]\w+:", line):
            section = True
        elif line and not line.startswith(" "):
            section = False
        if not line.startswith("    "):
            literal = literal and not line
        elif not section and not before and not literal:
            found += [".. code-block:: text", ""]
            literal = True
        is_code = literal or line.lstrip().startswith((">>>", "..."))
        found.append(line if is_code else re.sub(r"^Source:", "**Source:**", _escaped(line)))
    lines[:] = found


def setup(app: Any) -> None:
    app.connect("source-read", prepare)
    app.connect("include-read", prepare)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=100)  # before Napoleon
