"""A web page that searches an index: an image or a sentence becomes a code once, and any prefix of it is searched."""

import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from .errors import NestKALAError
from .hasher import Hasher
from .images import thumbnail
from .index import SearchIndex
from .index.strings import as_text

MAX_UPLOAD_BYTES = 20_000_000
MAX_UPLOAD_PIXELS = 50_000_000
MAX_TEXT = 500
MAX_RESULTS = 200
MAX_SHORTLIST = 10_000
_THUMBNAIL = 320
_SHORTEST = 4


def make_app(index: SearchIndex, hasher: Hasher, folder: Path) -> Starlette:
    """The application, for any ASGI server.

    Routes:
        GET /: the page.
        POST /encode with an image as the body, or GET /encode?text=...: {"code": hexadecimal}.
        GET /search?code=...&bits=...&k=...&shortlist=...: {"results": [{"image", "distance", "thumbnail"}], "ms"}.
        GET /thumbnail/TICKET, as a result names it: no file is served that was in no result.

    Args:
        index: that is searched, and stays as it is.
        hasher: which made its codes.
        folder: where its images are.
    """
    root, tickets, images = folder.resolve(), Tickets(), f"{len(index):,}"
    one_at_a_time = Lock()  # a search takes all processors, and not every threading layer of numba bears two

    @lru_cache(maxsize=4096)
    def small(name: str) -> bytes | None:
        path = (root / name).resolve()
        # A link out of the folder is no image of the folder.
        return thumbnail(path, _THUMBNAIL) if path.is_relative_to(root) else None

    async def page(_: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = Template(files("nestkala").joinpath("pages/search.html").read_text(encoding="utf-8"))
        policy = f"default-src 'none'; img-src 'self' blob:; connect-src 'self'; style-src 'nonce-{nonce}'; "
        policy += f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
        lengths = [bits for bits in index.lengths if bits >= min(_SHORTEST, index.bits)]
        values = {"nonce": nonce, "bits": index.bits, "lengths": json.dumps(lengths), "images": images}
        return HTMLResponse(text.substitute(values), headers={"Content-Security-Policy": policy})

    async def encode(request: Request) -> Response:
        if request.method == "GET":
            text = request.query_params.get("text", "")
            if not 0 < len(text.strip()) <= MAX_TEXT:
                raise HTTPException(400, f"text must have 1 to {MAX_TEXT} characters")
            code = await run_in_threadpool(hasher.encode_text, text.strip())
        else:
            image = await run_in_threadpool(_uploaded, await _body(request))
            code = await run_in_threadpool(hasher.encode, image)
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
            with one_at_a_time:
                started = time.perf_counter()
                hits = index.search(code, k, bits, shortlist=shortlist)
                ms = 1000 * (time.perf_counter() - started)
            results = [
                {"image": as_text(name), "distance": distance, "thumbnail": f"thumbnail/{tickets.of(name)}"}
                for name, distance in zip(hits.ids[0], hits.distances[0].tolist(), strict=True)
            ]
            return {"results": results, "ms": ms}

        return JSONResponse(await run_in_threadpool(found))

    async def image(request: Request) -> Response:
        name = tickets.name_of(request.path_params["ticket"])
        jpeg = None if name is None else await run_in_threadpool(small, name)
        if jpeg is None:
            raise HTTPException(404, "there is no such image")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/encode", encode, methods=["GET", "POST"]),
            Route("/search", search),
            Route("/thumbnail/{ticket}", image),
        ],
        exception_handlers={HTTPException: _refused, NestKALAError: _mistaken},
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


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _mistaken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_UPLOAD_BYTES:
            raise HTTPException(413, f"the image is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB")
        parts.append(part)
    return b"".join(parts)


def _uploaded(data: bytes) -> bytes:
    """The image's bytes, if it has not too many pixels to be decoded."""
    try:
        with Image.open(BytesIO(data)) as image:
            pixels = image.width * image.height
    except Exception as error:  # Pillow raises nearly every type on broken files
        raise NestKALAError("this is no image that can be read") from error
    if pixels > MAX_UPLOAD_PIXELS:
        raise NestKALAError(f"the image has more than {MAX_UPLOAD_PIXELS // 1_000_000} million pixels")
    return data


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
