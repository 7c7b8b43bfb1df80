"""An index that PostgreSQL keeps and searches (pip install "nestkala[postgresql]")."""

from .index import PostgresIndex

__all__ = ["PostgresIndex"]
