"""Hash layers: features (B, d) -> relaxed codes of every length in (-1, 1), (B, width). They need torch alone.

The contract that all of them keep is `HashHead`.
"""

from .cascade import CascadeHashHead
from .contract import HashHead, check_lengths
from .flat import FlatHashHead
from .nested import NestedHashHead

__all__ = ["CascadeHashHead", "FlatHashHead", "HashHead", "NestedHashHead", "check_lengths"]
