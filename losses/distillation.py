"""Long-to-short self-distillation: a shorter code learns the similarities that the next longer one sees."""

import torch.nn.functional as F
from torch import Tensor


def distill(shorter: Tensor, longer: Tensor) -> Tensor:
    """|S_b - stopgrad(S_b')|_F^2 / B^2, S being the rows of H H^T scaled to unit norm.

    Source: Nested Hash Layer (arXiv 2412.08922), long-short cascade self-distillation.

    Args:
        shorter: relaxed codes (B, b).
        longer: the next longer length's (B, b'); no gradient reaches them.

    Returns:
        A scalar in [0, 4 / B].
    """
    teacher = longer.detach()
    student_similarity = F.normalize(shorter @ shorter.T, dim=1)  # (B, B)
    teacher_similarity = F.normalize(teacher @ teacher.T, dim=1)  # (B, B)
    return F.mse_loss(student_similarity, teacher_similarity)
