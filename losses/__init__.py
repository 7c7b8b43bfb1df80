"""Hashing losses, one per file, and `NestedLoss`, which applies any of them at every code length at once.

They depend on torch only. Every loss implements `HashLoss`.
"""

from .adsh import ADSH
from .centers import majority_centers, nested_centers
from .contract import HashLoss, TermsError, TrainingSet
from .csq import CSQ
from .dbdh import DBDH
from .dcc import NotFiniteError, dcc, random_codes
from .dch import DCH
from .dhn import DHN
from .dpn import DPN
from .dpsh import DPSH
from .dsdh import DSDH
from .dsh import DSH
from .dtsh import DTSH
from .greedyhash import GreedyHash
from .hash_centers import gilbert_varshamov, hash_centers, minimum_distance
from .hashnet import HashNet
from .hswd import WithHSWD, hswd
from .kiddo import KIDDO
from .lcdsh import LCDSH
from .mdsh import MDSH
from .nested import NestedLoss, NestedTerms
from .ortho import OrthoHashArc, OrthoHashCos
from .pairwise import shares_label
from .targets import multi_hot

__all__ = [
    "ADSH",
    "CSQ",
    "DBDH",
    "DCH",
    "DHN",
    "DPN",
    "DPSH",
    "DSDH",
    "DSH",
    "DTSH",
    "KIDDO",
    "LCDSH",
    "MDSH",
    "GreedyHash",
    "HashLoss",
    "HashNet",
    "NestedLoss",
    "NestedTerms",
    "NotFiniteError",
    "OrthoHashArc",
    "OrthoHashCos",
    "TermsError",
    "TrainingSet",
    "WithHSWD",
    "dcc",
    "gilbert_varshamov",
    "hash_centers",
    "hswd",
    "majority_centers",
    "minimum_distance",
    "multi_hot",
    "nested_centers",
    "random_codes",
    "shares_label",
]
