"""Any hashing loss, at every length of one model at once."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from .arguments import not_negative
from .contract import HashLoss, TermsError, terms_of
from .distillation import distill
from .inputs import Inputs, checked
from .weighting import dominance_weights, halving_weights


class NestedTerms(NamedTuple):
    """The parts of a nested loss.

    Attributes:
        total: the loss, a scalar to call backward on.
        terms: {length: {term name: scalar}}, before weighting, including distillation.
        sums: (m,), the sum of each length's terms.
        weights: (m,), constants that multiply the sums; they add up to m.
    """

    total: Tensor
    terms: dict[int, dict[str, Tensor]]
    sums: Tensor
    weights: Tensor


def prefix(bits: int) -> slice:
    """The first columns, which hold a nested code of this length."""
    return slice(0, bits)


class NestedLoss(nn.Module):
    """One loss per length on its part of h, usually a prefix; balanced, with longer codes teaching shorter ones.

    Source: Nested Hash Layer (arXiv 2412.08922).

    Args:
        lengths: code lengths in bits, ascending.
        make_loss: length -> the `HashLoss` for it.
        weighting: "adaptive" scales longer lengths down if they would reverse a shorter one's gradient
            (`dominance_weights`), "uniform" weighs all lengths equally, as "adaptive" does without gradient, and
            "halving" gives each length half the weight of the next shorter one (`halving_weights`).
        distillation: weight of long-to-short self-distillation (`distill`), 0 for none.
        columns: length -> the columns of h, and of the anchors, that are its code; prefixes by default. For a
            head whose codes do not nest, pass `head.columns`.

    Raises:
        ValueError: if weighting is unknown, lengths do not ascend, distillation is negative, or weighting is adaptive
            for codes that are not prefixes and so share no bits to balance; on call, if the width of h is wrong, or
            adaptive weighting has no `weight`.

    Example:
        >>> head = NestedHashHead(512, lengths=(8, 16, 32))
        >>> nested = NestedLoss((8, 16, 32), make_loss=lambda bits: DPSH())
        >>> parameters = [*head.parameters(), *nested.parameters()]  # some losses have their own
        >>> optimizer = torch.optim.SGD(parameters, lr=0.1)
        >>> loss = nested(head(features), targets, indices, weight=head.weight)
        >>> loss.backward()
    """

    def __init__(
        self,
        lengths: Sequence[int],
        make_loss: Callable[[int], HashLoss],
        weighting: Literal["adaptive", "uniform", "halving"] = "adaptive",
        distillation: float = 1.0,
        columns: Callable[[int], slice] = prefix,
    ) -> None:
        super().__init__()
        if weighting not in ("adaptive", "uniform", "halving"):
            raise ValueError(f"weighting must be 'adaptive', 'uniform' or 'halving', not '{weighting}'")
        self.lengths = tuple(lengths)
        whole = all(type(bits) is int and bits >= 1 for bits in self.lengths)
        if not (self.lengths and whole and all(a < b for a, b in pairwise(self.lengths))):
            raise ValueError(f"lengths must be ascending whole numbers of bits, 1 or more, not {list(lengths)}")
        self.columns = {bits: columns(bits) for bits in self.lengths}
        if weighting == "adaptive" and any(where != prefix(bits) for bits, where in self.columns.items()):
            raise ValueError(
                "adaptive weighting balances lengths on the bits they share, but codes that do not nest share none: "
                "use uniform or halving"
            )
        self.width: int = max(where.stop for where in self.columns.values())
        masks = torch.zeros(len(self.lengths), 1, self.width)
        for mask, where in zip(masks, self.columns.values(), strict=True):
            mask[:, where] = 1
        self.register_buffer("_masks", masks, persistent=False)
        self.losses: Sequence[HashLoss] = nn.ModuleList(make_loss(bits) for bits in self.lengths)  # type: ignore[assignment]
        self.weighting = weighting
        self.distillation = not_negative("distillation", distillation)

    _masks: Tensor  # (m, 1, L), 1 in the columns of a length's code

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
        """The loss and its parts.

        Args:
            h: relaxed codes (B, L) in (-1, 1), of any dtype, of the whole (global) batch; L is the longest length, or
                the total width of `columns`.
            targets: class indices (B,), whole numbers of 0 or more, or multi-hot labels (B, C), 0 or 1, of any dtype.
            indices: whole numbers (B,), positions of these images in the training set, 0..N-1.
            anchors: text anchors in code space (C, L), for losses that use them.
            weight: the hash layer's weight (L, d) from which h was computed; adaptive weighting compares the
                lengths' gradients with respect to it.

        Raises:
            ValueError: if the width of h is wrong, an argument has the wrong shape, dtype or range, arguments do not
                match, or adaptive weighting has no `weight`.
            TermsError: if a loss's `terms` does not return a dict of scalars, or uses the name "distillation".
        """
        if h.ndim == 2 and h.shape[1] != self.width:
            raise ValueError(f"h has {h.shape[1]} columns, but codes of {list(self.lengths)} bits need {self.width}")
        h, targets, indices, anchors = checked(Inputs(h, targets, indices, anchors), self.num_classes)
        terms: dict[int, dict[str, Tensor]] = {}
        # One copy of h per length: a single backward pass then yields the gradients of all lengths separately.
        copies = h.expand(len(self.lengths), -1, -1)  # (m, B, L)
        for (bits, where), loss, copy in zip(self.columns.items(), self.losses, copies.unbind(), strict=True):
            terms[bits] = terms_of(loss, Inputs(copy[:, where], targets, indices, self._at(anchors, bits)))
            if "distillation" in terms[bits]:
                raise TermsError(f"{type(loss).__name__}.terms: rename 'distillation', the nested loss uses it")
        if self.distillation:
            distilled = self.distillation * distill(copies * self._masks.to(h))  # (m - 1,)
            for bits, value in zip(self.lengths, distilled.unbind(), strict=False):
                terms[bits]["distillation"] = value
        values = torch.stack([value for of_length in terms.values() for value in of_length.values()])
        counts = [len(of_length) for of_length in terms.values()]
        weights = self._weights(values.sum(), copies, h, weight)
        by_value = torch.cat([w.expand(count) for w, count in zip(weights.unbind(), counts, strict=True)])
        sums = torch.stack([part.sum() for part in values.detach().split(counts)])
        return NestedTerms((by_value.to(values.dtype) * values).sum(), terms, sums, weights)

    def _weights(self, unweighted: Tensor, copies: Tensor, h: Tensor, weight: Tensor | None) -> Tensor:
        """The lengths' weights (m,), given the sum of their losses, each computed from its own copy of h."""
        if self.weighting == "halving":
            return h.new_tensor(halving_weights(len(copies)))
        if self.weighting == "uniform" or len(copies) == 1 or not torch.is_grad_enabled():
            return h.new_ones(len(copies))
        if weight is None:
            raise ValueError("adaptive weighting needs the hash layer's weight: pass weight=head.weight")
        (by_code,) = torch.autograd.grad(unweighted, copies, retain_graph=True)  # (m, B, L)
        by_weight = [torch.autograd.grad(h, weight, of_length, retain_graph=True)[0] for of_length in by_code.unbind()]
        return self._balanced(by_weight)

    def _balanced(self, gradients: list[Tensor]) -> Tensor:
        """Weights (m,), from gradients with respect to the hash layer's weight, (L, d) each."""
        return dominance_weights(gradients, self.lengths)

    def _at(self, anchors: Tensor | None, bits: int) -> Tensor | None:
        return None if anchors is None else anchors[:, self.columns[bits]]

    @property
    def num_classes(self) -> int | None:
        """C, if any length's loss knows it. Raises ValueError if they disagree."""
        known = {loss.num_classes for loss in self.losses} - {None}
        if len(known) > 1:
            raise ValueError(f"the losses are for different numbers of classes: {sorted(map(str, known))}")
        return next(iter(known), None)

    @property
    def uses_anchors(self) -> bool:
        """Whether any length's loss reads the anchors."""
        return any(loss.uses_anchors for loss in self.losses)

    @property
    def database_codes(self) -> dict[int, Tensor] | None:
        """{length: discrete codes (N, length)} of the training images, if the loss intends them to be searched."""
        codes = {bits: loss.database_codes for bits, loss in zip(self.lengths, self.losses, strict=True)}
        found = {bits: of_length for bits, of_length in codes.items() if of_length is not None}
        return found if len(found) == len(codes) else None

    def sample(self, epoch: int) -> Tensor | None:
        """The training images, int64 (n,), that this epoch (0 or more) uses; None for all."""
        return self.losses[0].sample(epoch)

    @torch.no_grad()
    def end_epoch(self, anchors: Tensor | None = None) -> None:
        """Call after every epoch, with the current anchors (C, L)."""
        for bits, loss in zip(self.lengths, self.losses, strict=True):
            loss.end_epoch(self._at(anchors, bits))

    @torch.no_grad()
    def discrete_objectives(self, anchors: Tensor | None = None) -> Tensor | None:
        """(m,): each length's `HashLoss.discrete_objective`, right after `end_epoch`; None if there is none."""
        found = [
            loss.discrete_objective(self._at(anchors, bits))
            for bits, loss in zip(self.lengths, self.losses, strict=True)
        ]
        told = [value for value in found if value is not None]
        return torch.stack(told) if len(told) == len(found) else None
