"""Long-to-short self-distillation: a shorter code learns the similarities of the next longer one."""

import torch.nn.functional as F
from torch import Tensor


def distill(codes: Tensor) -> Tensor:
    """|S_b - stopgrad(S_b')|_F^2 / B^2 for each length b and the next longer b'; S is H H^T with rows of unit norm.

    Source: Nested Hash Layer (arXiv 2412.08922), long-short cascade self-distillation.

    Args:
        codes: relaxed codes of m lengths, ascending, (m, B, L), 0 in columns outside a length's code.

    Returns:
        (m - 1,), each in [0, 4 / B]. No gradient reaches the longer code of a pair.
    """
    similarities = F.normalize(codes @ codes.mT, dim=2)  # (m, B, B)
    return (similarities[:-1] - similarities[1:].detach()).square().mean(dim=(1, 2))
