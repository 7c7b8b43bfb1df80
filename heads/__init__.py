"""Hash layers: features (B, d) -> relaxed codes of every length in (-1, 1), (B, width). They depend on torch only.

Every head implements `HashHead`.
"""

from .cascade import CascadeHashHead
from .contract import HashHead, check_lengths
from .flat import FlatHashHead
from .nested import NestedHashHead

__all__ = ["CascadeHashHead", "FlatHashHead", "HashHead", "NestedHashHead", "check_lengths"]
