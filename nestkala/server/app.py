"""A web page that searches an index: a query is encoded once, and any prefix of its code can be searched."""

import time
from collections.abc import Collection, Sequence
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ExceptionHandler

from ..codes import pack
from ..hasher import Hasher
from ..index import Hits, PrefixIndex, SearchIndex
from ..index.strings import as_text
from ..search.places import ImageFolders
from ..search.queries import Query, mixture, search_mixture
from ..utils.errors import NestKALAError
from .classes import Classes
from .guard import Guard
from .page import Page
from .pictures import Pictures
from .tickets import Tickets
from .turns import Turns
from .uploads import body, check_upload

MAX_TEXT = 500
MAX_RESULTS = 200
"""Maximum number of results per response; request more by offset."""
MAX_DEPTH = 10_000
"""Maximum number of results of a query in total, and of images on a shortlist."""
MAX_CODES = 8
"""Maximum number of wanted items in a query, and of unwanted ones."""
MAX_CONDITIONS = 8
_SHORTEST = 4
_UPLOADS = 8
_SEALED = {"Content-Security-Policy": "default-src 'none'; sandbox"}


def make_app(
    index: SearchIndex,
    hasher: Hasher,
    folder: Path | ImageFolders,
    hosts: Collection[str] | None = None,
    originals: bool = False,
) -> Starlette:
    """The application, for any ASGI server.

    Routes:
        GET /: the page.
        POST /encode with an image as the body, or GET /encode?text=...: {"code": hexadecimal}.
        GET /encode?image=...: the same for an image in the index, by ticket or name, with its "image" and "thumbnail".
        GET /search?code=...&not=...&bits=...&k=...&offset=...&shortlist=...&class=...&where=...: {"results": [{"image",
            "distance", "ticket", "thumbnail"}], "more": whether there may be more, "ms"}. `code`, `not` and `where` can
            be repeated; a `class` without a `code` searches for the code of the class.
        GET /browse?k=...&offset=...&where=...: the same for images from all over the index, without distances.
        GET /classes: {"classes": [{"name", "images"}]}, for models with classes.
        GET /thumbnail/TICKET, /photograph/TICKET and /original/TICKET, with a ticket from a result: only files that
            were in a result are served. The second is screen-sized, the third is the original file.
        GET /about/TICKET: {"date", "taken", "width", "height", "bytes"}.

    Errors are returned as {"error": a sentence}: 400 for invalid requests, 403 and 400 by `Guard`, 404, 405, 408, 413
    and 415 for uploads that are too slow, too large or not images, and 503 if the server is busy.

    Args:
        index: index to search; it is not changed.
        hasher: the index's model.
        folder: image folder, or the result of `search.places.folders_of` for several folders.
        hosts: allowed host names of the server, from `guard.own_names`; None for any.
        originals: also serve the original files, whose metadata may reveal where a photograph was taken.
    """
    tickets, pictures, classes = Tickets(), Pictures(ImageFolders.of(folder)), Classes(index, hasher)
    # One search uses all cores, and not every threading layer of Numba supports two; one image takes much memory.
    searching, reading, looking, shrinking, uploading = Turns(1), Turns(1), Turns(1), Turns(1), Turns(_UPLOADS)
    lengths = [bits for bits in index.lengths if bits >= min(_SHORTEST, index.bits)]
    html = Page(bits=index.bits, lengths=lengths, images=len(index), classes=classes.exist, originals=originals)

    async def page(_: Request) -> Response:
        return html.response()

    async def icon(_: Request) -> Response:
        return Response(html.icon, media_type="image/svg+xml", headers={"Cache-Control": "max-age=86400"})

    def checked_and_encoded(image: bytes) -> NDArray[np.uint8]:
        check_upload(image)
        return hasher.encode(image)

    async def encode(request: Request) -> Response:
        if request.method == "POST":
            async with body(request, uploading) as image:
                code = await looking.run(checked_and_encoded, image)
            return JSONResponse({"code": _hex(code)})
        if (asked := request.query_params.get("image")) is not None:
            name = tickets.name_of(asked) or asked
            found = await searching.run(index.get, name)
            if found is None:
                raise HTTPException(404, f"{as_text(name)[:100]} is not in the index")
            return JSONResponse({"code": _hex(found[0]), **described(name)})
        text = request.query_params.get("text", "").strip()
        if not 0 < len(text) <= MAX_TEXT:
            raise HTTPException(400, f"text must have 1 to {MAX_TEXT} characters")
        return JSONResponse({"code": _hex(await reading.run(hasher.encode_text, text))})

    def described(name: str) -> dict[str, Any]:
        ticket = tickets.of(name)
        return {"image": as_text(name), "ticket": ticket, "thumbnail": f"thumbnail/{ticket}"}

    async def search(request: Request) -> Response:
        asked = request.query_params
        name, bits = asked.get("class") or None, _number(asked.get("bits"), index.bits, "bits")
        wanted, unwanted = ([_code(text, index.bits) for text in asked.getlist(key)] for key in ("code", "not"))
        if not wanted and name is None:
            wanted = [_code("", index.bits)]  # raises an error about the missing code
        if max(len(wanted), len(unwanted)) > MAX_CODES:
            raise HTTPException(400, f"a query can have at most {MAX_CODES} wanted and {MAX_CODES} unwanted items")
        k, offset = _range(asked.get("k"), asked.get("offset"))
        shortlist = _number(asked.get("shortlist"), 0, "shortlist") or None
        if shortlist is not None and shortlist > MAX_DEPTH:
            raise HTTPException(400, f"shortlist must be at most {MAX_DEPTH}, not {shortlist}")

        where = _conditions(asked.getlist("where"))

        def found() -> dict[str, Any]:
            started = time.perf_counter()
            among = index if name is None else classes.images_of(name, with_metadata=bool(where))
            codes = wanted or [classes.code(str(name))]
            hits = _found(among, codes, unwanted, offset + k, bits, shortlist, where)
            ms = 1000 * (time.perf_counter() - started)
            results = [
                {**described(one), "distance": distance}
                for one, distance in zip(hits.ids[0][offset:], hits.distances[0][offset:].tolist(), strict=True)
            ]
            more = len(results) == k and offset + k < min(len(among), shortlist or MAX_DEPTH)
            return {"results": results, "more": more, "ms": ms}

        return JSONResponse(await searching.run(found))

    async def browse(request: Request) -> Response:
        k, offset = _range(request.query_params.get("k"), request.query_params.get("offset"))
        names, where = list[str](), _conditions(request.query_params.getlist("where"))
        if where:
            anything = np.zeros((1, -(-index.bits // 8)), np.uint8)
            hits = await searching.run(lambda: index.search(anything, offset + k, where=where))
            names = hits.ids[0][offset:]
        elif isinstance(index, PrefixIndex):
            names = (await searching.run(index.ids.take, _scattered(len(index), offset, k))).as_list()
        more = len(names) == k and offset + k < min(len(index), MAX_DEPTH)
        return JSONResponse({"results": [{**described(name), "distance": None} for name in names], "more": more})

    async def known_classes(_: Request) -> Response:
        counts = await searching.run(classes.counts) if classes.exist else {}
        return JSONResponse({"classes": [{"name": name, "images": number} for name, number in counts.items()]})

    def named(request: Request) -> str:
        name = tickets.name_of(request.path_params["ticket"])
        if name is None:
            raise HTTPException(404, "no such image")
        return name

    async def jpeg(request: Request) -> Response:
        show = pictures.large if request.url.path.startswith("/photograph/") else pictures.small
        data = await shrinking.run(show, named(request))
        if data is None:
            raise HTTPException(404, "the image no longer exists or cannot be read")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})

    async def original(request: Request) -> Response:
        found = await shrinking.run(pictures.original, named(request)) if originals else None
        if found is None:
            raise HTTPException(404, "no such image")
        path, kind = found
        return FileResponse(path, media_type=kind, filename=as_text(path.name), headers=_SEALED)

    async def about(request: Request) -> Response:
        name = named(request)
        _, metadata = await searching.run(index.get, name) or (None, {})
        return JSONResponse(await shrinking.run(pictures.facts, name, metadata))

    return Starlette(
        routes=[
            Route("/", page),
            Route("/icon.svg", icon),
            Route("/encode", encode, methods=["GET", "POST"]),
            Route("/search", search),
            Route("/browse", browse),
            Route("/classes", known_classes),
            Route("/thumbnail/{ticket}", jpeg),
            Route("/photograph/{ticket}", jpeg),
            Route("/original/{ticket}", original),
            Route("/about/{ticket}", about),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={
            HTTPException: _refused,
            NestKALAError: _answering(400),
            ClientDisconnect: _answering(400, "the request was canceled"),
            Exception: _answering(500, "internal server error; see the output of the server"),
        },
    )


def _found(
    among: SearchIndex,
    wanted: Sequence[NDArray[np.uint8]],
    unwanted: Sequence[NDArray[np.uint8]],
    k: int,
    bits: int,
    shortlist: int | None,
    where: Sequence[str],
) -> Hits:
    """The k nearest to one code or to a mixture of several; with a shortlist, ranked by full codes."""
    if len(wanted) == 1 and not unwanted:
        return among.search(wanted[0], k, bits, shortlist=shortlist, where=where)
    mixed = mixture([Query("", code) for code in wanted], [Query("", code) for code in unwanted], among.bits)
    if shortlist is not None:
        return among.search(pack(mixed), k, bits, shortlist=shortlist, rescore=mixed, where=where)
    # Always the same depth, or pages would not fit together.
    return search_mixture(among, mixed, k, MAX_DEPTH, bits, where)


def _scattered(count: int, offset: int, k: int) -> list[int]:
    """Entries offset to offset + k - 1 of a permutation of 0 to count - 1 whose every beginning is evenly spread.

    Takes steps of the golden ratio (Knuth, The Art of Computer Programming, 6.4), which visit each number once.
    """
    step = max(1, round(0.6180339887 * count))
    while gcd(step, count) > 1:
        step += 1
    return [number * step % count for number in range(offset, min(offset + k, count))]


def _hex(code: NDArray[np.uint8]) -> str:
    return code[0].tobytes().hex()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _answering(status: int, sentence: str | None = None) -> ExceptionHandler:
    """A handler that answers with this sentence, or with the error's own."""

    async def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": sentence or str(error)}, status)

    return answer


def _code(text: str, bits: int) -> np.ndarray:
    try:
        code = bytes.fromhex(text)
    except ValueError:
        code = b""
    if len(code) != -(-bits // 8):
        raise HTTPException(400, f"code must be {-(-bits // 8)} bytes in hexadecimal, as returned by /encode")
    return np.frombuffer(code, np.uint8)[None]


def _conditions(texts: Sequence[str]) -> Sequence[str]:
    """The conditions. Raises HTTPException if there are too many, or one is too long."""
    if len(texts) > MAX_CONDITIONS or any(len(text) > MAX_TEXT for text in texts):
        raise HTTPException(
            400, f"a filter can have at most {MAX_CONDITIONS} conditions of at most {MAX_TEXT} characters"
        )
    return texts


def _range(k: str | None, offset: str | None) -> tuple[int, int]:
    """How many results are requested, and how many to skip."""
    count, first = _number(k, 24, "k"), _number(offset, 0, "offset")
    if not 0 < count <= MAX_RESULTS:
        raise HTTPException(400, f"k must be 1 to {MAX_RESULTS}, not {count}")
    if not 0 <= first <= MAX_DEPTH - count:
        raise HTTPException(400, f"offset must be 0 to {MAX_DEPTH - count}, not {first}")
    return count, first


def _number(text: str | None, default: int, name: str) -> int:
    try:
        return default if text is None else int(text)
    except ValueError:
        raise HTTPException(400, f"{name} must be a whole number, not {text[:50]!r}") from None  # type: ignore[index]
