"""Search packed codes at any prefix length."""

from .contract import Hits, SearchIndex
from .local.joined import JoinedIndex
from .prefix_index import PrefixIndex

__all__ = ["Hits", "JoinedIndex", "PrefixIndex", "SearchIndex"]
