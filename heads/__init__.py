"""Hash layers: features (B, d) -> relaxed codes (B, L) in (-1, 1). They need torch alone."""

from .nested import NestedHashHead, check_lengths

__all__ = ["NestedHashHead", "check_lengths"]
