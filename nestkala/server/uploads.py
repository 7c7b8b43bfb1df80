"""Images that clients send, taken within limits of size, time and memory."""

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
"""Bytes that are taken without room: who sends a few, slowly, is in nobody's way."""


@asynccontextmanager
async def body(request: Request, room: Turns) -> AsyncIterator[bytes]:
    """A request's body; a large one has room until the context ends.

    Raises:
        HTTPException: 413 for more than `MAX_UPLOAD_BYTES`, 408 where it takes more than `UPLOAD_SECONDS`, 503 where
            there was no room for long.
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
                        deadline.reschedule(None)  # to wait is not the client's fault
                        await stack.enter_async_context(room.turn())
                        deadline.reschedule(asyncio.get_running_loop().time() + UPLOAD_SECONDS)
                        has_room = True
        except TimeoutError:
            raise HTTPException(408, f"the image took more than {UPLOAD_SECONDS:g} s to arrive") from None
        content = bytes(data)
        del data
        yield content


def check_upload(data: bytes) -> None:
    """Raise HTTPException for what is no image of a format that is taken, 415, or has too many pixels, 413."""
    try:
        with open_image(data) as image:
            pixels = image.width * image.height
    except UnidentifiedImageError:
        said = f"this is no image that can be read ({', '.join(FORMATS)})"
        raise HTTPException(415, said) from None
    except Image.DecompressionBombError:
        pixels = MAX_UPLOAD_PIXELS + 1
    except Exception:  # Pillow raises nearly every type on broken files
        raise HTTPException(400, "the image is broken") from None
    if pixels > MAX_UPLOAD_PIXELS:
        raise HTTPException(413, f"the image has more than {MAX_UPLOAD_PIXELS // 1_000_000} million pixels")


def _too_large() -> HTTPException:
    return HTTPException(413, f"the image is larger than {MAX_UPLOAD_BYTES // 1_000_000} MB")
