"""The page, assembled from its parts, with a policy that lets no other scripts run."""

import json
import secrets
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from starlette.responses import HTMLResponse, Response

from .uploads import MAX_UPLOAD_BYTES

_SCRIPTS = ("server", "query", "grid", "viewer", "main")
"""In the order in which they run; they share one scope."""


class Page:
    """The page of one server.

    Args:
        bits: code length of the index.
        lengths: prefix lengths to choose from, ascending.
        images: number of images in the index.
        classes: whether images can be filtered by class.
        originals: whether original files are served.
    """

    def __init__(self, *, bits: int, lengths: Sequence[int], images: int, classes: bool, originals: bool) -> None:
        parts = files("nestkala").joinpath("pages/search")
        known = {"bits": bits, "lengths": list(lengths), "images": images, "classes": classes, "originals": originals}
        self.icon = parts.joinpath("icon.svg").read_bytes()
        self._template = Template(parts.joinpath("page.html").read_text(encoding="utf-8"))
        self._values = {
            "images": f"{images:,}",
            "known": escape(json.dumps({**known, "upload": MAX_UPLOAD_BYTES})),
            "style": parts.joinpath("style.css").read_text(encoding="utf-8"),
            "script": "\n".join(parts.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
        }

    def response(self) -> Response:
        """The page with a fresh nonce."""
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; img-src 'self' blob:; connect-src 'self'; style-src 'nonce-{nonce}'; "
        policy += f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        html = self._template.substitute(self._values, nonce=nonce)
        return HTMLResponse(html, headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})
