"""Any hashing objective, on every prefix length of one nested code at once."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .contract import HashLoss
from .distillation import distill
from .weighting import dominance_weights


class NestedTerms(NamedTuple):
    """What a nested loss is made of.

    Attributes:
        total: the loss, a scalar to call backward on.
        terms: {length: {term's name: scalar}}, before weighting, distillation among them.
        sums: (m,), each length's terms summed.
        weights: (m,), constants of sum m that multiplied the lengths' sums.
    """

    total: Tensor
    terms: dict[int, dict[str, Tensor]]
    sums: Tensor
    weights: Tensor


class NestedLoss(nn.Module):
    """One loss a length on the prefixes h[:, :b], balanced against each other, the longer teaching the shorter.

    Source: Nested Hash Layer (arXiv 2412.08922).

    Args:
        lengths: code lengths in bits, ascending; the last is the width of h.
        make_loss: length -> the `HashLoss` for it.
        weighting: "adaptive" scales longer lengths down where they would reverse a shorter one's gradient
            (`dominance_weights`), "uniform" weighs all lengths alike, as both do where there is no gradient.
        distillation: weight of the long-to-short self-distillation (`distill`), 0 for none.

    Raises:
        ValueError: an unknown weighting, or lengths that do not ascend; on call, h of another width, or adaptive
            weighting without `weight`.

    Example:
        >>> head = NestedHashHead(512, lengths=(8, 16, 32))
        >>> nested = NestedLoss((8, 16, 32), make_loss=lambda bits: DPSH())
        >>> loss = nested(head(features), targets, indices, weight=head.weight)
        >>> loss.backward()
    """

    def __init__(
        self,
        lengths: Sequence[int],
        make_loss: Callable[[int], HashLoss],
        weighting: Literal["adaptive", "uniform"] = "adaptive",
        distillation: float = 1.0,
    ) -> None:
        super().__init__()
        if weighting not in ("adaptive", "uniform"):
            raise ValueError(f"weighting must be 'adaptive' or 'uniform', not '{weighting}'")
        self.lengths = tuple(lengths)
        if not self.lengths or any(a >= b for a, b in pairwise(self.lengths)):
            raise ValueError(f"lengths must be ascending, at least one, not {list(lengths)}")
        self.losses: Sequence[HashLoss] = nn.ModuleList(make_loss(bits) for bits in self.lengths)  # type: ignore[assignment]
        self.weighting = weighting
        self.distillation = distillation

    def forward(
        self,
        h: Tensor,
        targets: Tensor,
        indices: Tensor,
        anchors: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar. Arguments as for `terms`."""
        return self.terms(h, targets, indices, anchors, weight).total

    def terms(
        self,
        h: Tensor,
        targets: Tensor,
        indices: Tensor,
        anchors: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> NestedTerms:
        """The loss and what it is made of.

        Args:
            h: relaxed codes (B, L) in (-1, 1), of the whole (global) batch.
            targets: multi-hot labels (B, C).
            indices: int64 (B,), which training images these are.
            anchors: text anchors in code space (C, L), for losses that use them.
            weight: the hash layer's weight (L, d), which h was computed from: adaptive weighting compares the
                lengths' gradients there.

        Raises:
            ValueError: h of another width than the longest length; no `weight` for adaptive weighting.
        """
        if h.shape[1] != self.lengths[-1]:
            raise ValueError(f"h has {h.shape[1]} columns, the longest length is {self.lengths[-1]}")
        targets = targets.to(h.dtype)
        terms: dict[int, dict[str, Tensor]] = {}
        for bits, loss in zip(self.lengths, self.losses, strict=True):
            terms[bits] = loss.terms(h[:, :bits], targets, indices, None if anchors is None else anchors[:, :bits])
        if self.distillation:
            for shorter, longer in zip(self.lengths, self.lengths[1:], strict=False):
                terms[shorter]["distillation"] = self.distillation * distill(h[:, :shorter], h[:, :longer])
        # Kept apart until the weights are there: through one stack each length's gradient would visit all lengths.
        sums = [torch.stack(list(of_length.values())).sum() for of_length in terms.values()]
        weights = self._weights(sums, weight)
        stacked = torch.stack(sums)  # (m,)
        return NestedTerms((weights.to(stacked.dtype) * stacked).sum(), terms, stacked.detach(), weights)

    def _weights(self, sums: list[Tensor], weight: Tensor | None) -> Tensor:
        if self.weighting == "uniform" or len(self.lengths) == 1 or not torch.is_grad_enabled():
            return sums[0].new_ones(len(sums))
        if weight is None:
            raise ValueError("adaptive weighting needs weight, the hash layer's: weight=head.weight")
        gradients = [torch.autograd.grad(s, weight, retain_graph=True)[0] for s in sums]
        return dominance_weights(gradients, self.lengths)

    @property
    def uses_anchors(self) -> bool:
        """Whether any length's loss reads the anchors."""
        return any(loss.uses_anchors for loss in self.losses)

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """To be called after every epoch, with the anchors (C, L) of that moment."""
        for bits, loss in zip(self.lengths, self.losses, strict=True):
            loss.end_epoch(None if anchors is None else anchors[:, :bits])
