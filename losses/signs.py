"""Signs of relaxed codes, as a constant and as a step that gradients pass through."""

from torch import Tensor


def signs(h: Tensor) -> Tensor:
    """The signs of h, -1 or +1 in its dtype, without gradient; 0 counts as +1, as when binarizing."""
    return (h.detach() >= 0).to(h.dtype) * 2 - 1


def sign_through(h: Tensor) -> Tensor:
    """The signs of h, exactly -1 or +1, with the gradient of the identity: the straight-through estimator.

    Source: Bengio, Léonard, Courville (arXiv 1308.3432) section 4; in hashing GreedyHash (Su et al., NeurIPS 2018).

    Example:
        >>> codes = sign_through(h)  # (B, b), whatever reaches codes by gradient reaches h
    """
    return signs(h) + (h - h.detach())  # a bracket of exactly 0; h + (sign - h) would lose the sign beside a large h
