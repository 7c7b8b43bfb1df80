"""Prompt tuning: learned tokens next to the image's own."""

import torch
from torch import Tensor, nn

from .contract import Adapter


class Prompts(Adapter):
    """Every adapted block sees `number` learned tokens after the image's own; their outputs are discarded.

    Source: visual prompt tuning (Jia et al., ECCV 2022), VPT-deep, eq. 5.

    Args:
        width: d, the width of the tokens.
        num_blocks: number of adapted blocks.
        number: tokens per block, 1 or more.
    """

    def __init__(self, width: int, num_blocks: int, number: int = 8) -> None:
        super().__init__(num_blocks)
        bound = width**-0.5
        self.tokens = nn.ParameterList(torch.empty(number, width).uniform_(-bound, bound) for _ in range(num_blocks))

    def prompts(self) -> list[Tensor]:
        return list(self.tokens)
