"""Signs of relaxed codes, as constants and with a straight-through gradient."""

from torch import Tensor


def signs(h: Tensor) -> Tensor:
    """The signs of h, -1 or +1 in its dtype, without gradient; the sign of 0 is +1, as when binarizing."""
    return (h.detach() >= 0).to(h.dtype) * 2 - 1


def sign_through(h: Tensor) -> Tensor:
    """The signs of h, exactly -1 or +1, with the gradient of the identity (the straight-through estimator).

    Source: Bengio, Léonard, Courville (arXiv 1308.3432) section 4; in hashing GreedyHash (Su et al., NeurIPS 2018).

    Example:
        >>> codes = sign_through(h)  # (B, b); the gradient of codes is passed on to h
    """
    return signs(h) + (h - h.detach())  # the bracket is exactly 0; h + (sign - h) would lose the sign if h is large
