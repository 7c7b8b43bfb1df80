"""The last seen outputs of all training images."""

from torch import Tensor


def remembered(memory: Tensor, h: Tensor, indices: Tensor, keep: bool) -> Tensor:
    """The memory (N, b) with the outputs h (B, b) of a batch in it, a copy in h's dtype and without gradient.

    With `keep` the memory itself takes note of them, too. It is a copy even then, as the next batch writes, perhaps
    before this one's backward pass.
    """
    written = memory if keep else memory.clone()
    written[indices] = h.detach().to(memory.dtype)
    return written.to(h.dtype, copy=True)
