"""Maps texts to code space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .mixture import CHUNK

_RIDGE = 4.0
_IMAGES_A_TEXT = 10.0


def fit_text(
    texts: Tensor, text_codes: Tensor, images: Tensor, image_codes: Tensor, center: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fit a linear map from texts to the codes of images that they describe: weight (L, d_t) and bias (L,).

    Ridge regression from texts and images, both centered and normalized. The classes' texts together count as much as
    all images, or as 10 images each if that is more.

    Args:
        texts: of the classes, (C, d_t).
        text_codes: targets of the texts, (C, L).
        images: features (M, d_t) in the space of the texts; M may be 0.
        image_codes: targets of the images, (M, L).
        center: center of texts about anything, (d_t,); None for the mean of `texts`. Around their own mean C texts
            span C - 1 dimensions, too few for three of them to have independent codes.
    """
    mean = texts.mean(dim=0) if center is None else center
    centered = texts - mean
    scale = centered.norm(dim=1).mean().clamp(min=1e-12)  # the same for all texts, so that the map is linear
    middle = images.mean(dim=0)
    directions = [F.normalize(rows - middle, dim=1) for rows in images.split(CHUNK)]
    inputs = torch.cat([F.normalize(centered, dim=1), *directions])
    counts = inputs.new_ones(len(inputs))
    counts[: len(texts)] = max(_IMAGES_A_TEXT, len(images) / len(texts))
    weight = ridge_regression(inputs, torch.cat([text_codes, image_codes]), counts, _RIDGE) / scale
    return weight, -weight @ mean


def ridge_regression(inputs: Tensor, outputs: Tensor, counts: Tensor, ridge: float) -> Tensor:
    """W (L, d) that minimizes sum_i counts_i |W x_i - y_i|^2 + ridge |W|^2, for inputs (n, d) and outputs (n, L)."""
    chunks = list(zip(inputs.split(CHUNK), outputs.split(CHUNK), counts[:, None].split(CHUNK), strict=True))
    gram = torch.stack([x.T @ (count * x) for x, _, count in chunks]).sum(dim=0)
    wanted = torch.stack([(count * x).T @ y for x, y, count in chunks]).sum(dim=0)
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device), wanted).T


def scale_to_labels(codes: Tensor, lengths: tuple[int, ...]) -> float:
    """The s that minimizes |I - s Z_b Z_b^T|^2 summed over the lengths; Z_b is the first b columns of codes (C, L)."""
    products = [codes[:, :bits] @ codes[:, :bits].T for bits in lengths]
    return sum(p.trace().item() for p in products) / sum(p.square().sum().item() for p in products)
