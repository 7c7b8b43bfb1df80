"""Search among packed codes at any prefix length."""

from .contract import Hits, SearchIndex
from .prefix_index import PrefixIndex

__all__ = ["Hits", "PrefixIndex", "SearchIndex"]
