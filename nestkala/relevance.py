"""`bootstrap_interval` as it was called before; it moved to `nestkala.evaluation.relevance`."""

import warnings

from .evaluation.relevance import bootstrap_interval

__all__ = ["bootstrap_interval"]

warnings.warn(
    "nestkala.relevance is now nestkala.evaluation.relevance; the old name goes with the next version",
    FutureWarning,
    stacklevel=2,
)
