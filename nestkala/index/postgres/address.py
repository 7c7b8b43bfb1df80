"""The address of an index in PostgreSQL: postgresql://USER@HOST:PORT/DATABASE#TABLE."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ...utils.errors import NestKALAError, one_line

TABLE = "nestkala"
"""Default table if an address names none."""

_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_OLDEST = 14
"""The first PostgreSQL version with bit_count."""
_SECONDS = 60


@dataclass(frozen=True)
class Address:
    """A database and a table in it.

    Attributes:
        table: table name, optionally with a schema: archive.photos.
        shown: the address for display, without password and options.
    """

    table: str
    shown: str
    _options: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an address.

        Raises:
            NestKALAError: the address is invalid. The message does not repeat it, since it may contain a password.
        """
        uri, _, table = text.partition("#")
        table = table or TABLE
        if re.fullmatch(rf"{_NAME}(\.{_NAME})?", table) is None:
            raise NestKALAError(
                "the table name after # must be at most 63 letters, digits and _, such as photos or archive.photos; "
                "write a # in a password as %23"
            )
        try:
            given = conninfo_to_dict(uri)
        except (psycopg.Error, ValueError):
            raise NestKALAError(
                "a PostgreSQL address must look like postgresql://USER@HOST:PORT/DATABASE#TABLE, with %XX for special "
                "characters in names and passwords"
            ) from None
        user = f"{quote(str(given['user']))}@" if "user" in given else ""
        port = f":{given['port']}" if "port" in given else ""
        host, database = (quote(str(given.get(part, "")), safe=":,[]") for part in ("host", "dbname"))
        return cls(table, f"postgresql://{user}{host}{port}/{database}#{table}", given)

    @property
    def identifier(self) -> sql.Identifier:
        """The table name for use in SQL."""
        return sql.Identifier(*self.table.split("."))

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open a connection in which each transaction sees a single state of the database.

        Raises:
            NestKALAError: the server does not answer, the database or user does not exist, or the server is too old or
                its database is not in UTF-8.
        """
        options = {"connect_timeout": _SECONDS, "application_name": "nestkala", **self._options}
        with self.explained():
            # Statements that are not prepared are planned for their actual values.
            connection = psycopg.connect(**options, client_encoding="UTF8", autocommit=True, prepare_threshold=None)
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            # PostgreSQL misjudges how many codes are in a range, and would compile 1 ms statements for 0.3 s.
            connection.execute("SET jit = off")
        version, encoding = connection.info.server_version, connection.info.parameter_status("server_encoding")
        if version < 10_000 * _OLDEST:
            connection.close()
            raise NestKALAError(
                f"{self.shown}: requires PostgreSQL {_OLDEST} or later, not {version // 10_000}.{version % 10_000}"
            )
        if encoding != "UTF8":
            connection.close()
            raise NestKALAError(f"{self.shown}: the database encoding must be UTF8, not {encoding}")
        return connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn PostgreSQL's errors into NestKALAError."""
        try:
            yield
        except psycopg.Error as error:
            said = error.diag.message_primary
            raise NestKALAError(f"PostgreSQL ({self.shown}): {said or one_line(error)}") from error
