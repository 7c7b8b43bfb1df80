"""Images uploaded by clients, with limits on size, time and memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..images.decoding import FORMATS, open_image
from .turns import Turns

MAX_UPLOAD_BYTES = 20_000_000
MAX_UPLOAD_PIXELS = 50_000_000
UPLOAD_SECONDS = 20.0
_SMALL = 100_000
"""Bytes accepted without a turn: small, slow uploads are in nobody's way."""


@asynccontextmanager
async def body(request: Request, room: Turns) -> AsyncIterator[bytes]:
    """Read the body of a request; a large one holds a turn until the context ends.

    Raises:
        HTTPException: 413 for more than `MAX_UPLOAD_BYTES`, 408 if it takes longer than `UPLOAD_SECONDS`, 503 if it
            waits too long for a turn.
    """
    if int(request.headers.get("content-length", "0")) > MAX_UPLOAD_BYTES:
        raise _too_large()
    data, has_room = bytearray(), False
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(UPLOAD_SECONDS) as deadline:
                async for part in request.stream():
                    data += part
                    if len(data) > MAX_UPLOAD_BYTES:
                        raise _too_large()
                    if len(data) > _SMALL and not has_room:
                        deadline.reschedule(None)  # waiting is not the client's fault
                        await stack.enter_async_context(room.turn())
                        deadline.reschedule(asyncio.get_running_loop().time() + UPLOAD_SECONDS)
                        has_room = True
        except TimeoutError:
            raise HTTPException(408, f"the image took more than {UPLOAD_SECONDS:g} s to arrive") from None
        content = bytes(data)
        del data
        yield content


def check_upload(data: bytes) -> None:
    """Raise HTTPException: 415 for unsupported formats, 413 for too many pixels, 400 for broken images."""
    try:
        with open_image(data) as image:
            pixels = image.width * image.height
    except UnidentifiedImageError:
        said = f"this is not an image in a supported format ({', '.join(FORMATS)})"
        raise HTTPException(415, said) from None
    except Image.DecompressionBombError:
        pixels = MAX_UPLOAD_PIXELS + 1
    except Exception:  # Pillow raises nearly every type on broken files
        raise HTTPException(400, "the image is broken") from None
    if pixels > MAX_UPLOAD_PIXELS:
        raise HTTPException(413, f"the image has more than {MAX_UPLOAD_PIXELS // 1_000_000} million pixels")


def _too_large() -> HTTPException:
    return HTTPException(413, f"the image is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB")
