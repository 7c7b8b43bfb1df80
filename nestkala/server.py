"""A web page that searches an index: an image or a sentence becomes a code once, and any prefix of it is searched."""

import secrets
import time
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from string import Template
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
from .index import PrefixIndex
from .index.strings import as_text

MAX_UPLOAD_BYTES = 20_000_000
MAX_UPLOAD_PIXELS = 50_000_000
MAX_TEXT = 500
MAX_RESULTS = 200
_THUMBNAIL = 320


def make_app(index: PrefixIndex, hasher: Hasher, folder: Path) -> Starlette:
    """The application, for any ASGI server.

    Routes:
        GET /: the page.
        POST /encode with an image as the body, or GET /encode?text=...: {"code": hexadecimal}.
        GET /search?code=...&bits=...&k=...&shortlist=...: {"results": [{"image", "distance", "position"}], "ms"}.
        GET /image/POSITION: a thumbnail of an image of the index; no other file is served.

    Args:
        index: that is searched, and stays as it is.
        hasher: which made its codes.
        folder: where its images are.
    """
    root = folder.resolve()

    @lru_cache(maxsize=4096)
    def small(position: int) -> bytes | None:
        path = (root / index.ids[position]).resolve()
        # A link out of the folder is no image of the folder.
        return thumbnail(path, _THUMBNAIL) if path.is_relative_to(root) else None

    async def page(_: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = Template(files("nestkala").joinpath("pages/search.html").read_text(encoding="utf-8"))
        policy = f"default-src 'none'; img-src 'self' blob:; connect-src 'self'; style-src 'nonce-{nonce}'; "
        policy += f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'"
        values = {"nonce": nonce, "bits": index.bits, "images": f"{len(index):,}"}
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

        def found() -> dict[str, Any]:
            started = time.perf_counter()
            hits = index.search(code, k, bits, shortlist=shortlist)
            ms = 1000 * (time.perf_counter() - started)
            rows = zip(map(as_text, hits.ids[0]), hits.distances[0].tolist(), hits.positions[0].tolist(), strict=True)
            results = [{"image": name, "distance": distance, "position": place} for name, distance, place in rows]
            return {"results": results, "ms": ms}

        return JSONResponse(await run_in_threadpool(found))

    async def image(request: Request) -> Response:
        position = int(request.path_params["position"])
        jpeg = await run_in_threadpool(small, position) if position < len(index) else None
        if jpeg is None:
            raise HTTPException(404, "there is no such image")
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/encode", encode, methods=["GET", "POST"]),
            Route("/search", search),
            Route("/image/{position:int}", image),
        ],
        exception_handlers={HTTPException: _refused, NestKALAError: _mistaken},
    )


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
