"""Who may send requests to the server: its own page, under one of its own names."""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def own_names(host: str, other: str | None = None) -> Collection[str] | None:
    """The names of a server at `host`, plus an `other` name; None for any name, if public and without another."""
    if other is None and not is_loopback(host):
        return None
    return sorted({"localhost", "127.0.0.1", "::1", host.lower(), (other or host).lower()})


def is_loopback(host: str) -> bool:
    """Whether a server at `host` can be reached only from this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_host_name(name: str) -> bool:
    """Whether this is a plain host name, without port, scheme or path."""
    return _name(name) == name.lower()


class Guard:
    """ASGI middleware that refuses requests from the pages of other sites, and tells browsers to do the same.

    Args:
        app: the application to protect.
        hosts: host names from `own_names`; they keep out pages whose name was pointed at this server (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        refusal = self._refusal(Headers(scope=scope))
        app = self._app if refusal is None else refusal
        return await app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            return JSONResponse(
                {"error": f"this server is called {' or '.join(sorted(self._hosts))}, not {host[:100]!r}"}, 400
            )
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return JSONResponse({"error": "requests from other sites are not allowed"}, 403)
        return None


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
