"""Prompt tuning: learned tokens beside the image's own."""

import torch
from torch import Tensor, nn

from .contract import Adapter


class Prompts(Adapter):
    """Every adapted block sees `number` learned tokens behind the image's own; what it makes of them is dropped.

    Source: visual prompt tuning (Jia et al., ECCV 2022), VPT-deep, eq. 5.

    Args:
        width: d, of the tokens.
        num_blocks: how many blocks are adapted.
        number: tokens a block, 1 or more.
    """

    def __init__(self, width: int, num_blocks: int, number: int = 8) -> None:
        super().__init__(num_blocks)
        bound = width**-0.5
        self.tokens = nn.ParameterList(torch.empty(number, width).uniform_(-bound, bound) for _ in range(num_blocks))

    def prompts(self) -> list[Tensor]:
        return list(self.tokens)
