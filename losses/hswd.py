"""HSWD: pulls the values of every bit in a batch to balanced signs; a quantization term for any loss."""

import torch
from torch import Tensor

from .arguments import not_negative
from .contract import HashLoss, terms_of
from .inputs import Inputs


def hswd(h: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance between a bit's values in the batch and the uniform distribution on {-1, +1}.

    A scalar. With x_1 <= ... <= x_B the sorted values of one bit, as a mean over the bits:

        1/B [sum over the lower half (x + 1)^2  +  sum over the upper half (x - 1)^2],

    If B is odd, the middle value counts half in each. The distance is 0 if every bit is balanced and all values are
    signs. It compares whole distributions, so use large batches (a single image is pulled to 0).

    Source: HSWD (Doan, Yang, Li, CVPR 2022), the distance along the code's own axes. The paper sorts B random signs
    per bit as targets; here the target is the distribution itself, exactly half and half.

    Args:
        h: relaxed codes (B, b), of the whole (global) batch.
    """
    size = len(h)
    places = torch.arange(size, device=h.device)
    signs = (2 * places - (size - 1)).sign().to(h.dtype)  # (B,): -1 below, +1 above, 0 in the middle if B is odd
    values = h.sort(dim=0, stable=True).values  # stable: every process breaks ties the same way
    # the mean of (x + 1)^2 and (x - 1)^2 is x^2 + 1, once per bit
    return (values - signs[:, None]).square().mean() + size % 2 / size


class WithHSWD(HashLoss):
    """Another loss with `hswd` in place of its `quantization_term`, if it has one.

        base without its quantization term  +  weight * hswd(H)

    `paper`, `multi_label` and `uses_anchors` of an instance are the base's; on the class they have no meaning.

    Source: HSWD (Doan, Yang, Li, CVPR 2022), which replaces the quantization term of several losses.

    Args:
        base: the loss, at the same length.
        weight: weight of the term "hswd", 0 or more.

    Raises:
        ValueError: if weight is out of range.

    Example:
        >>> loss = WithHSWD(DPSH())
        >>> value = loss(h, targets, indices)  # h (B, b), targets (B, C)
    """

    paper = "HSWD (Doan et al., CVPR 2022)"

    def __init__(self, base: HashLoss, weight: float = 0.1) -> None:
        super().__init__()
        self.base, self.num_classes = base, base.num_classes
        self.weight = not_negative("weight", weight)
        # the base class defines these on the class, which cannot know `base`
        self.paper = f"{base.paper} with {type(self).paper}"  # type: ignore[misc]
        self.multi_label = base.multi_label  # type: ignore[misc]
        self.uses_anchors = base.uses_anchors  # type: ignore[misc]

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        terms = terms_of(self.base, Inputs(h, targets, indices, anchors))
        terms.pop(self.base.quantization_term, None)
        return {**terms, "hswd": self.weight * hswd(h)}

    @property
    def database_codes(self) -> Tensor | None:
        return self.base.database_codes

    def sample(self, epoch: int) -> Tensor | None:
        return self.base.sample(epoch)

    def end_epoch(self, anchors: Tensor | None = None) -> None:
        self.base.end_epoch(anchors)

    def discrete_objective(self, anchors: Tensor | None = None) -> Tensor | None:
        return self.base.discrete_objective(anchors)
