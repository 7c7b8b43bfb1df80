"""Limit how many requests work at a time, so that memory and cores suffice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.exceptions import HTTPException

T = TypeVar("T")

WAIT_SECONDS = 60.0


class Turns:
    """Allows a limited number of turns at a time; raises HTTPException 503 after waiting `WAIT_SECONDS`."""

    def __init__(self, at_a_time: int) -> None:
        self._free = asyncio.Semaphore(at_a_time)
        # A separate pool: glibc keeps the memory freed by each of the many threads of a common pool.
        self._threads = ThreadPoolExecutor(at_a_time)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in a thread when it has a turn, and return its result."""
        async with self.turn():
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it until the context ends."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise HTTPException(503, "the server is busy: try again later", {"Retry-After": "10"}) from None
        try:
            yield
        finally:
            self._free.release()
