"""Server connections: excess connections and slow ones are closed."""

import asyncio

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 500
PATIENCE = 10.0
"""Seconds that a client has to send the head of a request, and to accept the response."""


def make_server(app: ASGIApp) -> uvicorn.Server:
    """An HTTP server for the application, to run on sockets."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_level="error",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(config)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1 with deadlines; uvicorn itself waits forever for a head, and for responses to be read.

    The application has its own deadline for request bodies.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        # IDLE: waiting for the head; DONE: responded, with the rest of the body still arriving.
        if self.conn.our_state not in (h11.IDLE, h11.DONE) and not self.flow.write_paused:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(PATIENCE, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
