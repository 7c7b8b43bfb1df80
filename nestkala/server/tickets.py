"""Signed names, so that clients can request only images that the server named."""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode


class Tickets:
    """Converts names to tickets and back; tickets cannot be forged."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, name: str) -> str:
        """The ticket of a name, in URL-safe characters."""
        data = name.encode("utf-8", "surrogateescape")
        return urlsafe_b64encode(self._seal(data) + data).decode()

    def name_of(self, ticket: str) -> str | None:
        """The name of a ticket made by `of`; None for any other string."""
        try:
            content = urlsafe_b64decode(ticket)
        except ValueError:
            return None
        seal, data = content[:16], content[16:]
        return data.decode("utf-8", "surrogateescape") if hmac.compare_digest(seal, self._seal(data)) else None

    def _seal(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, "sha256")[:16]
