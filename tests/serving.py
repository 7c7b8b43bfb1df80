"""A real server of an app, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp

from nestkala.server.connections import make_server


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """The port at which it answers, while the context lasts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = make_server(app)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)
