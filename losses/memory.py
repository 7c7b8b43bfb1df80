"""What losses that remember the last seen output of every training image have in common."""

from torch import Tensor

from .arguments import can_be_looked_at
from .contract import HashLoss


class MemoryLoss(HashLoss):
    """A `HashLoss` that keeps the labels and the last seen output of every training image, in buffers.

    A subclass calls `start_memory` in its constructor.
    """

    targets: Tensor  # (N, C)
    memory: Tensor  # (N, b), U; 0 where nothing has been seen

    def start_memory(self, targets: Tensor, memory: Tensor) -> None:
        """Take labels of the whole training set, multi-hot (N, C), and an empty memory (N, b) in the dtype of both."""
        self.num_classes = targets.shape[1]
        self.register_buffer("targets", targets.to(memory.dtype), persistent=False)
        self.register_buffer("memory", memory)

    def remember(self, h: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Check the batch and, where the loss `learns`, store its outputs (B, b), without gradient.

        Raises:
            ValueError: h, targets and indices that do not fit together, or the training set.
        """
        self._check_batch(h, targets, indices)
        if self.learns:
            self.memory[indices] = h.detach().to(self.memory.dtype)

    def remembered(self, h: Tensor, targets: Tensor, indices: Tensor) -> Tensor:
        """As `remember`, and return the memory (N, b) with this batch in it, in h's dtype and without gradient.

        It is a copy, as the next batch writes to the memory, perhaps before this one's backward pass.
        """
        self.remember(h, targets, indices)
        written = self.memory.to(h.dtype, copy=True)
        written[indices] = h.detach().to(self.memory.dtype).to(h.dtype)
        return written

    def _check_batch(self, h: Tensor, targets: Tensor, indices: Tensor) -> None:
        """Indices must be 0 to N - 1: negative ones would count from the end. They are looked at on the CPU alone."""
        if not len(h) == len(targets) == len(indices):
            raise ValueError(f"{len(h)} rows of h do not fit {len(targets)} rows of targets and {len(indices)} indices")
        if h.shape[1] != self.memory.shape[1]:
            raise ValueError(f"h has {h.shape[1]} columns, the loss is for {self.memory.shape[1]} bits")
        if targets.shape[1] != self.targets.shape[1]:
            raise ValueError(f"targets of {targets.shape[1]} classes, the training set has {self.targets.shape[1]}")
        if not can_be_looked_at(indices):
            return
        outside = (indices < 0) | (indices >= len(self.memory))
        if outside.any():
            raise ValueError(f"indices must be 0 to {len(self.memory) - 1}, and hold {indices[outside][0].item()}")
