"""Names that the server gave out, sealed so that no other can be asked for."""

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode


class Tickets:
    """Names that were given out come back as they were; others cannot be made up."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, name: str) -> str:
        """The ticket of a name, letters that an address may hold."""
        data = name.encode("utf-8", "surrogateescape")
        return urlsafe_b64encode(self._seal(data) + data).decode()

    def name_of(self, ticket: str) -> str | None:
        """The name of a ticket that `of` gave; None for another."""
        try:
            content = urlsafe_b64decode(ticket)
        except ValueError:
            return None
        seal, data = content[:16], content[16:]
        return data.decode("utf-8", "surrogateescape") if hmac.compare_digest(seal, self._seal(data)) else None

    def _seal(self, data: bytes) -> bytes:
        return hmac.digest(self._secret, data, "sha256")[:16]
