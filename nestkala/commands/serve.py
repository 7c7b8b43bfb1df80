"""`nestkala serve`."""

import socket
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from ..utils.errors import NestKALAError
from .backend_flag import BackendFlag


@dataclass(frozen=True)
class Serve:
    """Serve a web page for searching by image or text, at any code length."""

    index: Positional[Annotated[str, arg(metavar="INDEX")]]
    """index made by `nestkala index`: a file, a folder with its index next to it, or a Milvus or PostgreSQL address"""

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets anyone on the network in, without a password"""

    port: int = 8000
    """port to listen on; 0 picks a free one"""

    name: str | None = None
    """host name that users reach the server by, such as a proxy's; other names than this and its own are refused"""

    model: str | None = None
    """new location of the index's model, if it has moved"""

    backend: BackendFlag = "torch"

    root: UseAppendAction[Annotated[tuple[str, ...], arg(metavar="FOLDER")]] = ()
    """new location of the image folder, if it has moved; NAME=FOLDER if the index covers several"""

    def run(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise NestKALAError(f"port must be 0 (any free port) to 65535, not {self.port}")
        try:
            from ..server.app import make_app
            from ..server.connections import make_server
            from ..server.guard import is_host_name, is_loopback, own_names
        except ImportError as error:
            raise NestKALAError('the web page needs starlette and uvicorn: pip install "nestkala[serve]"') from error
        from ..search.opening import index_called, open_index
        from ..search.places import folders_of
        from ..search.provenance import hasher_of

        if self.name is not None and not is_host_name(self.name):
            raise NestKALAError(f"--name must be a plain host name, such as photos.example, not {self.name!r}")
        where = index_called(self.index)
        index = open_index(where)
        folders = folders_of(index, where, self.root).check_there(where)
        hasher = hasher_of(index, self.model, where, self.backend)
        alone = self.name is None and is_loopback(self.host)
        app = make_app(index, hasher, folders, own_names(self.host, self.name), originals=alone)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.create_server((self.host, self.port), family=family)
        host = f"[{self.host}]" if family == socket.AF_INET6 else self.host
        address = f"http://{host}:{listening.getsockname()[1]}"
        print(f"{len(index)} images of {folders}: {address} (press Ctrl-C to stop)", flush=True)
        make_server(app).run(sockets=[listening])
