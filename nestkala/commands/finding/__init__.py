"""Subcommands that find images, or say what they show."""

from .classify import Classify
from .duplicates import Duplicates
from .search import Search

__all__ = ["Classify", "Duplicates", "Search"]
