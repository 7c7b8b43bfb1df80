"""Subcommands that search, group or classify images."""

from .classify import Classify
from .duplicates import Duplicates
from .search import Search

__all__ = ["Classify", "Duplicates", "Search"]
