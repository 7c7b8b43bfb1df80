"""Hashing objectives, one a file, and `NestedLoss`, which puts any of them on every code length at once.

They need torch alone. The contract that all of them keep is `HashLoss`.
"""

from .centres import majority_centres, nested_centres
from .contract import HashLoss, TrainingSet
from .dcc import dcc, random_codes
from .dpsh import DPSH
from .kiddo import KIDDO
from .nested import NestedLoss, NestedTerms

__all__ = [
    "DPSH",
    "KIDDO",
    "HashLoss",
    "NestedLoss",
    "NestedTerms",
    "TrainingSet",
    "dcc",
    "majority_centres",
    "nested_centres",
    "random_codes",
]
