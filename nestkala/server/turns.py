"""Work that few requests do at a time, so that memory and processors suffice for those."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.exceptions import HTTPException

T = TypeVar("T")

WAIT_SECONDS = 60.0


class Turns:
    """Turns, so many at a time; who waits longer than `WAIT_SECONDS` is told so, with HTTPException 503."""

    def __init__(self, at_a_time: int) -> None:
        self._free = asyncio.Semaphore(at_a_time)
        # Threads of its own: glibc keeps what each of the many threads of a common pool has freed.
        self._threads = ThreadPoolExecutor(at_a_time)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What a function gives in a thread, when it is its turn."""
        async with self.turn():
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

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
