"""Base class for losses that remember the last seen output of every training image."""

from torch import Tensor

from .arguments import can_be_looked_at
from .contract import HashLoss


class MemoryLoss(HashLoss):
    """A `HashLoss` with buffers for the labels and the last seen output of every training image.

    A subclass calls `start_memory` in its constructor.
    """

    targets: Tensor  # (N, C)
    memory: Tensor  # (N, b), U; 0 for images not yet seen

    def start_memory(self, targets: Tensor, memory: Tensor) -> None:
        """Store labels of the whole training set, multi-hot (N, C), and an empty memory (N, b), which set the dtype."""
        self.num_classes = targets.shape[1]
        self.register_buffer("targets", targets.to(memory.dtype), persistent=False)
        self.register_buffer("memory", memory)

    def remember(self, h: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Check the batch and, if the loss `learns`, store its outputs (B, b), without gradient.

        Raises:
            ValueError: if h, targets and indices do not match each other or the training set.
        """
        self._check_batch(h, targets, indices)
        if self.learns:
            self.memory[indices] = h.detach().to(self.memory.dtype)

    def remembered(self, h: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """Like `remember`, but return the memory (N, b) including this batch, in h's dtype and without gradient.

        It is a copy, because the next batch may write to the memory before this batch's backward pass.
        """
        self.remember(h, targets, indices)
        written = self.memory.to(h.dtype, copy=True)
        written[indices] = h.detach().to(self.memory.dtype).to(h.dtype)
        return written

    def _check_batch(self, h: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Indices must be 0 to N - 1: negative ones would count from the end. They are checked on the CPU only."""
        if not len(h) == len(targets) == len(indices):
            raise ValueError(f"{len(h)} rows of h do not fit {len(targets)} rows of targets and {len(indices)} indices")
        if h.shape[1] != self.memory.shape[1]:
            raise ValueError(f"h has {h.shape[1]} columns, but the loss is for {self.memory.shape[1]} bits")
        if targets.shape[1] != self.targets.shape[1]:
            raise ValueError(f"targets have {targets.shape[1]} classes, the training set {self.targets.shape[1]}")
        if not can_be_looked_at(indices):
            return
        outside = (indices < 0) | (indices >= len(self.memory))
        if outside.any():
            raise ValueError(f"indices must be 0 to {len(self.memory) - 1}, but contain {indices[outside][0].item()}")
