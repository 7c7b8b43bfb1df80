"""An index in PostgreSQL (pip install "nestkala[postgresql]")."""

from .index import PostgresIndex

__all__ = ["PostgresIndex"]
