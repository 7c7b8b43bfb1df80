"""A web page that searches an index: an image or a sentence becomes a code once, and any prefix of it is searched."""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ..hasher import Hasher
from ..images.decoding import thumbnail
from ..index import SearchIndex
from ..index.strings import as_text
from ..search.places import ImageFolders
from ..utils.errors import NestKALAError
from .guard import Guard
from .turns import Turns
from .uploads import body, check_upload

MAX_TEXT = 500
MAX_RESULTS = 200
MAX_SHORTLIST = 10_000
_THUMBNAIL = 320
_SHORTEST = 4
_UPLOADS = 8


def make_app(
    index: SearchIndex, hasher: Hasher, folder: Path | ImageFolders, hosts: Collection[str] | None = None
) -> Starlette:
    """The application, for any ASGI server.

    Routes:
        GET /: the page.
        POST /encode with an image as the body, or GET /encode?text=...: {"code": hexadecimal}.
        GET /search?code=...&bits=...&k=...&shortlist=...: {"results": [{"image", "distance", "thumbnail"}], "ms"}.
        GET /thumbnail/TICKET, as a result names it: no file is served that was in no result.

    Errors are answered by {"error": a sentence}: 400 for what cannot be asked, 403 and 400 by `Guard`, 404, 405, 408,
    413 and 415 for uploads that are too slow, too large or no images, 503 where many wait.

    Args:
        index: that is searched, and stays as it is.
        hasher: which made its codes.
        folder: where its images are; of several folders in the index `search.places.folders_of` gives it.
        hosts: names that the server may be called by, as `server_guard.own_names` gives them; None for any.
    """
    folders, tickets, images = ImageFolders.of(folder), Tickets(), f"{len(index):,}"
    roots = [path.resolve() for path in folders.paths.values()]
    template = Template(files("nestkala").joinpath("pages/search.html").read_text(encoding="utf-8"))
    # One search takes all processors, and not every threading layer of numba bears two; one image takes much memory.
    searching, reading, looking, shrinking, uploading = Turns(1), Turns(1), Turns(1), Turns(1), Turns(_UPLOADS)

    @lru_cache(maxsize=1024)
    def small(name: str) -> bytes | None:
        path = _inside(roots, folders.file(name))
        return None if path is None else thumbnail(path, _THUMBNAIL)

    async def page(_: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; img-src 'self' blob:; connect-src 'self'; style-src 'nonce-{nonce}'; "
        policy += f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        lengths = [bits for bits in index.lengths if bits >= min(_SHORTEST, index.bits)]
        values = {"nonce": nonce, "bits": index.bits, "lengths": json.dumps(lengths), "images": images}
        return HTMLResponse(template.substitute(values), headers={"Content-Security-Policy": policy})

    def checked_and_encoded(image: bytes) -> NDArray[np.uint8]:
        check_upload(image)
        return hasher.encode(image)

    async def encode(request: Request) -> Response:
        if request.method == "GET":
            text = request.query_params.get("text", "")
            if not 0 < len(text.strip()) <= MAX_TEXT:
                raise HTTPException(400, f"text must have 1 to {MAX_TEXT} characters")
            code = await reading.run(hasher.encode_text, text.strip())
        else:
            async with body(request, uploading) as image:
                code = await looking.run(checked_and_encoded, image)
        return JSONResponse({"code": code[0].tobytes().hex()})

    async def search(request: Request) -> Response:
        asked = request.query_params
        code = _code(asked.get("code", ""), index.bits)
        bits, k = _number(asked.get("bits"), index.bits, "bits"), _number(asked.get("k"), 24, "k")
        shortlist = _number(asked.get("shortlist"), 0, "shortlist") or None
        if not 0 < k <= MAX_RESULTS:
            raise HTTPException(400, f"k must be 1 to {MAX_RESULTS}, not {k}")
        if shortlist is not None and shortlist > MAX_SHORTLIST:
            raise HTTPException(400, f"shortlist must be {MAX_SHORTLIST} at most, not {shortlist}")

        def found() -> dict[str, Any]:
            started = time.perf_counter()
            hits = index.search(code, k, bits, shortlist=shortlist)
            ms = 1000 * (time.perf_counter() - started)
            results = [
                {"image": as_text(name), "distance": distance, "thumbnail": f"thumbnail/{tickets.of(name)}"}
                for name, distance in zip(hits.ids[0], hits.distances[0].tolist(), strict=True)
            ]
            return {"results": results, "ms": ms}

        return JSONResponse(await searching.run(found))

    async def image(request: Request) -> Response:
        name = tickets.name_of(request.path_params["ticket"])
        jpeg = None if name is None else await shrinking.run(small, name)
        if jpeg is None:
            raise HTTPException(404, "there is no such image")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/encode", encode, methods=["GET", "POST"]),
            Route("/search", search),
            Route("/thumbnail/{ticket}", image),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: _refused,
            NestKALAError: _mistaken,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )


class Tickets:
    """Names that were given out come back as they were; others cannot be made up."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, name: str) -> str:
        """The ticket of a name, letters that an address may hold."""
        data = name.encode("utf-8", "surrogateescape")
        return urlsafe_b64encode(self._seal(data) + data).decode()

    def name_of(self, ticket: str) -> str | None:
        """The name of a ticket that `of` gave; None for another."""
        try:
            content = urlsafe_b64decode(ticket)
        except ValueError:
            return None
        seal, data = content[:16], content[16:]
        return data.decode("utf-8", "surrogateescape") if hmac.compare_digest(seal, self._seal(data)) else None

    def _seal(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, "sha256")[:16]


def _inside(roots: list[Path], file: Path | None) -> Path | None:
    """The file where it is in one of the folders; None for one elsewhere, by a link, and for what is no file."""
    try:
        path = None if file is None else file.resolve()
        return path if path is not None and any(map(path.is_relative_to, roots)) and path.is_file() else None
    except (OSError, ValueError, RuntimeError):  # names that no file can have, links in a circle
        return None


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _mistaken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _gone(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the request was broken off"}, 400)


async def _failed(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "the server failed at this; what it printed says why"}, 500)


def _code(text: str, bits: int) -> np.ndarray:
    try:
        code = bytes.fromhex(text)
    except ValueError:
        code = b""
    if len(code) != -(-bits // 8):
        raise HTTPException(400, f"code must be {-(-bits // 8)} bytes in hexadecimal, as /encode gives them")
    return np.frombuffer(code, np.uint8)[None]


def _number(text: str | None, default: int, name: str) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        raise HTTPException(400, f"{name} must be a whole number, not {text[:50]!r}") from None  # type: ignore[index]
