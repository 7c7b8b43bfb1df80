"""GreedyHash: a classifier on the signs."""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import LARGEST_SEED, can_be_looked_at, not_negative, whole
from .contract import HashLoss, TrainingSet
from .signs import sign_through


class GreedyHash(HashLoss):
    """Cross-entropy of a linear classifier on the binary codes, plus the cubed distance of |H| from 1.

        mean_i -log softmax_{y_i}(W sign h_i)  +  quantization * mean | |h| - 1 |^3

    W (C, b) is trained with the network. The gradient of the sign is taken to be the identity (`sign_through`).

    Source: GreedyHash (Su et al., NeurIPS 2018), as means over images and entries. W has no bias.

    Args:
        num_classes, bits: C and b, 1 or more.
        quantization: weight of the second term, 0 or more.
        seed: seed for the initial W, uniform from -1 / sqrt(b) to 1 / sqrt(b).

    Raises:
        ValueError: if an argument is out of range; on call, if an image has several labels or none, or sizes do not
            match.

    Example:
        >>> loss = GreedyHash(num_classes=10, bits=16)
        >>> value = loss(h, targets, indices)  # h (B, 16), targets (B, 10)
    """

    paper = "GreedyHash (Su et al., NeurIPS 2018)"
    multi_label = False

    @classmethod
    def for_training(cls, bits: int, training: TrainingSet, **options: Any) -> Self:
        return cls(training.targets.shape[1], bits, **{"seed": training.seed, **options})

    def __init__(self, num_classes: int, bits: int, quantization: float = 0.1, seed: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.quantization = not_negative("quantization", quantization)
        # Not nn.Linear's default initialization, which draws from the global generator.
        self.classifier = nn.utils.skip_init(nn.Linear, bits, num_classes, bias=False)
        bound = bits**-0.5
        generator = torch.Generator().manual_seed(whole("seed", seed, 0, most=LARGEST_SEED))
        nn.init.uniform_(self.classifier.weight, -bound, bound, generator=generator)

    def terms(self, h: Tensor, targets: Tensor, indices: Tensor, anchors: Tensor | None = None) -> dict[str, Tensor]:
        classes, bits = self.classifier.weight.shape
        if h.shape[1] != bits or targets.shape != (len(h), classes):
            raise ValueError(
                f"a classifier of {classes} classes at {bits} bits does not fit h {tuple(h.shape)} "
                f"and targets {tuple(targets.shape)}"
            )
        if can_be_looked_at(targets) and (targets.sum(dim=1) != 1).any():
            raise ValueError("GreedyHash needs exactly one label per image, but an image has several or none")
        scores = F.linear(sign_through(h), self.classifier.weight.to(h.dtype))  # (B, C)
        return {
            "classification": F.cross_entropy(scores, targets.argmax(dim=1)),
            "quantization": self.quantization * (1 - h.abs()).abs().pow(3).mean(),
        }
