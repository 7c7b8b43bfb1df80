"""ADSH: asymmetric deep supervised hashing."""

from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import LARGEST_SEED, not_negative, whole
from .contract import TrainingSet
from .dcc import dcc
from .discrete import DiscreteLoss
from .pairwise import shares_label


class ADSH(DiscreteLoss):
    """Regresses inner products of outputs and the database's discrete codes onto the pairwise similarities.

    The database is the training set with its own codes V (N, b), which are the codes to be searched. The batch's
    images are queries; each round of epochs draws `queries` of them. With S_ij = 1 if i and j share a label and -r
    otherwise, where r = similar / dissimilar pairs of the database (1 if there are no dissimilar pairs):

        (|H V^T - b S|^2 + quantization |V_batch - H|^2) / (N |batch|)

    After every `round_epochs` epochs, `end_epoch` lowers the same objective over V by discrete cyclic coordinate
    descent, given the outputs U seen during the round. Up to a constant it is -2 (<V, linear> - 1/2 <V gram, V>) with
    linear = b S^T U + quantization U (U is 0 in the rows of images not seen) and gram = U^T U.

    Source: ADSH (Jiang and Li, AAAI 2018), with database images as queries; for several lengths, and for these
    defaults, MAH (arXiv 1809.09329).

    Args:
        targets: labels of the whole training set, multi-hot (N, C) or class indices (N,).
        codes: initial V (N, b), entries -1 or +1 (`random_codes`; give every length a prefix of one draw).
        quantization: weight of the distance between an image's output and its code, 0 or more.
        queries: number of images per round of epochs, 1 or more; capped at N.
        round_epochs: epochs before V is updated, 1 or more.
        sweeps: maximum passes of coordinate descent per update, 0 or more.
        seed: seed for drawing the queries; use the same at every length.

    Raises:
        ValueError: if targets and codes differ in their number of rows, or an argument is out of range; on call, if
            the sizes do not match the training set.

    Example:
        >>> codes = random_codes(len(targets), 16, torch.Generator().manual_seed(0))
        >>> loss = ADSH(targets, codes)
        >>> value = loss(h, targets[indices], indices)  # h (B, 16)
    """

    paper = "ADSH (Jiang and Li, AAAI 2018)"
    renamed: ClassVar = {"gamma": "quantization"}

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return super().for_training(bits, training, **{"seed": training.seed, **options})

    def __init__(
        self,
        targets: Tensor,
        codes: Tensor,
        quantization: float = 200.0,
        queries: int = 2000,
        round_epochs: int = 3,
        sweeps: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(targets, codes)
        self.quantization = not_negative("quantization", quantization)
        self.queries, self.round_epochs = whole("queries", queries, 1), whole("round_epochs", round_epochs, 1)
        self.sweeps, self.seed = whole("sweeps", sweeps, 0), whole("seed", seed, 0, most=LARGEST_SEED)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64, device=codes.device))
        self._single_label = bool((self.targets.sum(dim=1) <= 1).all())
        similar = self._sums_over_similar(codes.new_ones(len(codes), 1)).sum(dtype=torch.float64).item()
        dissimilar = len(codes) ** 2 - similar
        self.ratio = similar / dissimilar if dissimilar else 1.0

    epochs: Tensor  # completed so far

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        self.remember(h, targets, indices)
        codes, bits = self.codes.to(h.dtype), h.shape[1]
        wanted = (1 + self.ratio) * shares_label(targets, self.targets) - self.ratio  # S (B, N)
        return {
            "similarity": F.mse_loss(h @ codes.T, bits * wanted),
            "quantization": self.quantization * bits / len(codes) * F.mse_loss(h, codes[indices]),
        }

    @property
    def database_codes(self) -> Tensor | None:
        return self.codes if self.epochs >= self.round_epochs else None  # until then they are the random start

    def sample(self, epoch: int) -> Tensor | None:
        if len(self.codes) <= self.queries:
            return None
        of_round = self.seed * 2**20 + epoch // self.round_epochs  # no two seeds share a draw
        return torch.randperm(len(self.codes), generator=torch.Generator().manual_seed(of_round))[: self.queries]

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """At the end of a round, update V from the outputs seen in it, then forget them."""
        self.epochs += 1
        if self.epochs.item() % self.round_epochs:
            return
        U = self.memory
        products = (1 + self.ratio) * self._sums_over_similar(U) - self.ratio * U.sum(dim=0)  # S^T U (N, b)
        linear = U.shape[1] * products + self.quantization * U
        self.codes.copy_(dcc(self.codes, linear, U.T @ U, self.sweeps))
        self.memory.zero_()

    def _sums_over_similar(self, rows: Tensor) -> Tensor:
        """(N, k) -> (N, k): for every image, the sum of the rows of the images that share a label with it."""
        if self._single_label:
            return self.targets @ (self.targets.T @ rows)
        # in blocks: the whole similarity matrix would be N x N
        return torch.cat([shares_label(block, self.targets) @ rows for block in self.targets.split(1024)])
