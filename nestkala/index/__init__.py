"""Search among packed codes at any prefix length."""

from .prefix_index import Hits, PrefixIndex

__all__ = ["Hits", "PrefixIndex"]
