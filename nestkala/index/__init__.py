"""Search among packed codes at any prefix length."""

from .prefix_index import Hits, PrefixIndex
from .storage import load_index, save_index

__all__ = ["Hits", "PrefixIndex", "load_index", "save_index"]
