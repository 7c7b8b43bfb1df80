"""Work that few requests do at a time, so that memory and processors suffice for those."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException

WAIT_SECONDS = 60.0


class Turns:
    """Turns, so many at a time; who waits longer than `WAIT_SECONDS` is told so, with HTTPException 503."""

    def __init__(self, at_a_time: int) -> None:
        self._free = asyncio.Semaphore(at_a_time)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the context."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise HTTPException(503, "the server is busy: try again later", {"Retry-After": "10"}) from None
        try:
            yield
        finally:
            self._free.release()
