"""ADSH: asymmetric deep supervised hashing."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dcc import dcc
from .discrete import DiscreteLoss
from .pairwise import shares_label


class ADSH(DiscreteLoss):
    """Inner products of outputs and the database's discrete codes as the similarities want them.

    The database is the training set, with codes V (N, b) of its own; the batch's images are queries. With S_ij = 1
    where i and j share a label, else -r, r = similar / dissimilar pairs of the database (1 if none is dissimilar):

        (|H V^T - b S|^2 + gamma |V_batch - H|^2) / (N |batch|)

    After every `round_epochs` epochs `end_epoch` lowers the same objective over V, for the outputs U seen since the
    last time, by discrete cyclic coordinate descent. Up to a constant it is -2 (<V, linear> - 1/2 <V gram, V>) with
    linear = b S^T U + gamma U (in the rows of the images seen, 0 in others) and gram = U^T U.

    Source: ADSH (Jiang and Li, AAAI 2018), with database points as queries; at several lengths MAH (arXiv 1809.09329).

    Args:
        targets: multi-hot labels (N, C) of the whole training set.
        codes: where V starts (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one draw).
        gamma: weight of the distance between an image's output and its code, 0 or more.
        round_epochs: epochs before V is renewed, 1 or more.
        sweeps: passes of coordinate descent at most, each time; 0 or more.

    Raises:
        ValueError: targets and codes of different row numbers; round_epochs below 1.

    Example:
        >>> codes = random_codes(len(targets), 16, torch.Generator().manual_seed(0))
        >>> loss = ADSH(targets, codes)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "ADSH (Jiang and Li, AAAI 2018)"

    def __init__(
        self, targets: Tensor, codes: Tensor, gamma: float = 200.0, round_epochs: int = 3, sweeps: int = 1
    ) -> None:
        super().__init__(targets, codes)
        if round_epochs < 1:
            raise ValueError(f"round_epochs must be 1 or more, not {round_epochs}")
        self.gamma, self.round_epochs, self.sweeps = gamma, int(round_epochs), int(sweeps)  # 3.0, from a file, is 3
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64, device=codes.device))
        self._single_label = bool((targets.sum(dim=1) <= 1).all())
        similar = self._sums_over_similar(codes.new_ones(len(codes), 1)).sum(dtype=torch.float64).item()
        dissimilar = len(codes) ** 2 - similar
        self.ratio = similar / dissimilar if dissimilar else 1.0

    epochs: Tensor  # how many have ended

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        self.remember(h, indices)
        codes, bits = self.codes.to(h.dtype), h.shape[1]
        wanted = (1 + self.ratio) * shares_label(targets, self.targets) - self.ratio  # S (B, N)
        return {
            "similarity": F.mse_loss(h @ codes.T, bits * wanted),
            "quantization": self.gamma * bits / len(codes) * F.mse_loss(h, codes[indices]),
        }

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Where a round ends: renew V from the outputs seen in it, then forget them."""
        self.epochs += 1
        if self.epochs.item() % self.round_epochs:
            return
        U = self.memory
        products = (1 + self.ratio) * self._sums_over_similar(U) - self.ratio * U.sum(dim=0)  # S^T U (N, b)
        linear = U.shape[1] * products + self.gamma * U
        self.codes.copy_(dcc(self.codes, linear, U.T @ U, self.sweeps))
        self.memory.zero_()

    def _sums_over_similar(self, rows: Tensor) -> Tensor:
        """(N, k) -> (N, k): for every image the sum of the rows of those that share a label with it."""
        if self._single_label:
            return self.targets @ (self.targets.T @ rows)
        # in blocks: the whole similarity matrix would be N x N
        return torch.cat([shares_label(block, self.targets) @ rows for block in self.targets.split(1024)])
