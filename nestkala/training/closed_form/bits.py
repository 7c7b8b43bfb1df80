"""The rows of the hash layer: first bits for the kind of thing an image shows, then bits for the individual image."""

import math

import torch
from torch import Tensor

_FULL_SHARE, _BITS_TO_FULL = 0.4, 2.5
_DETAIL_REGULARIZATION = 0.5  # in mean variances
_CLASSES_TAKEN_OUT = 0.3  # share of the class information removed from detail bits; removing all would cost class mAP
_PLAIN = 16  # rows for few images that are neither whitened nor free of classes
_ROTATION_ROUNDS, _ROTATION_IMAGES = 30, 20_000


def default_class_bits(bits: int) -> int:
    """The number of class bits in a code: 32; half, but at least 16, of fewer than 64; all of fewer than 16."""
    return min(bits, max(16, min(32, bits // 2)))


def class_places(bits: int, class_bits: int | None, few_images: bool, are_named: bool = True) -> Tensor:
    """Which bits of a code are for the class, bool (bits,); the others are for the individual image.

    By default they are the first ones. With few images, classes cannot be separated reliably. Then the first 16 bits
    are for the class, or 8 if classes have neither names nor labels, the next ones, as many, for the image, and each
    further doubling of the length adds equally to both, so that no length depends on the classes alone. On sets of 126
    to 1,000 photographs, with held-out queries, this was better at nearly every longer length.

    Args:
        bits: length of the code.
        class_bits: number of leading bits for the class; None for the default.
        few_images: whether there are fewer images than feature dimensions.
        are_named: whether classes have names or labels; otherwise they are clusters.
    """
    places = torch.arange(bits)
    if class_bits is not None or not few_images:
        return places < (class_bits or default_class_bits(bits))
    first = 16 if are_named else 8
    doubling = 2 ** places.clamp(min=first).log2().floor().long()  # the length at which a bit's doubling starts
    return (places < first) | ((places >= 2 * first) & (places < doubling + doubling // 2))


def class_rows(units: Tensor, whitening: Tensor, centers: Tensor, generator: torch.Generator) -> Tensor:
    """Rows (L, k + C) on unit features and class probabilities, whose signs are codes near the class's center.

    A bit is the expected center's, p . z, plus a small part of the image itself: its projection on a direction
    rotated by ITQ. If one class is certain, that changes nothing except for images 2.5 deviations off along the
    direction. If two are likely, the bits in which they differ are split between them, so that the code lies between
    both centers and images of either class find it (a dither). The image's part grows to 0.4 over the first
    2.5 log2(C) bits, which the class itself needs.

    Args:
        units: images (M, k).
        whitening: (k, k), as in a `ClassLayer`.
        centers: (C, L), entries -1 or +1.
        generator: source of randomness for the initial rotation.
    """
    num_classes, bits = centers.shape
    whitened = (units - units.mean(dim=0)) @ whitening
    directions = rotated_components(whitened, bits, generator)  # (k, L)
    projected = whitened @ directions
    steps = torch.arange(bits).to(units) / (_BITS_TO_FULL * math.log2(num_classes))
    share = _FULL_SHARE * steps.clamp(max=1) / projected.std(dim=0).clamp(min=1e-12)
    return torch.cat([share[:, None] * (whitening @ directions).T, centers.T], dim=1)


def detail_rows(
    units: Tensor,
    probabilities: Tensor,
    variances: Tensor,
    mean_variance: Tensor,
    bits: int,
    generator: torch.Generator,
    few_images: bool = False,
) -> Tensor:
    """Rows (bits, k + C) that separate images of one class: principal components, half whitened, rotated by ITQ.

    Three tenths of the class information is removed first. With few images, the first 16 rows are the first components
    as they are: neither classes nor small variances are known reliably then. On sets of 126 to 400 photographs more of
    them did not help, and photographs of one kind got equal codes.

    Args:
        units, probabilities: images (M, k), and their class probabilities (M, C).
        variances: along the k principal directions; `mean_variance` is their mean over all dimensions.
        bits: number of rows.
        generator: source of randomness for the initial rotation.
        few_images: see `class_places`.
    """
    if few_images:
        plain = rotated_components(units - units.mean(dim=0), min(bits, _PLAIN), generator).T
        rows = torch.cat([plain, plain.new_zeros(len(plain), probabilities.shape[1])], dim=1)
        if bits <= _PLAIN:
            return rows
        others = detail_rows(units, probabilities, variances, mean_variance, bits - _PLAIN, generator)
        return torch.cat([rows, others])
    half = (variances + _DETAIL_REGULARIZATION * mean_variance).pow(-0.25)  # (k,)
    images = (units - units.mean(dim=0)) * half
    means = probabilities.T @ images / probabilities.sum(dim=0)[:, None].clamp(min=1e-6)  # (C, k)
    _, strengths, directions = torch.linalg.svd(means, full_matrices=False)
    span = directions[strengths > 1e-4 * strengths[0]]  # (s, k)
    rest = images - _CLASSES_TAKEN_OUT * (images @ span.T) @ span
    rows = rotated_components(rest, bits, generator).T  # (bits, k)
    rows = (rows - _CLASSES_TAKEN_OUT * (rows @ span.T) @ span) * half
    return torch.cat([rows, rows.new_zeros(bits, probabilities.shape[1])], dim=1)


def rotated_components(images: Tensor, bits: int, generator: torch.Generator) -> Tensor:
    """The first principal directions of centered images (M, k), rotated so that their signs lose least: (k, bits).

    If there are more bits than directions, the directions are rotated again, from another start.

    Source: ITQ (Gong and Lazebnik, CVPR 2011) algorithm 1.
    """
    directions = eigen(images.T @ images)[1].flip(1)  # (k, k)
    blocks = []
    for start in range(0, bits, images.shape[1]):
        block = directions[:, : bits - start]
        projected = images[:_ROTATION_IMAGES] @ block
        rotation = torch.linalg.qr(torch.randn(block.shape[1], block.shape[1], generator=generator).to(images)).Q
        for _ in range(_ROTATION_ROUNDS):
            left, _, right = torch.linalg.svd(torch.sign(projected @ rotation).T @ projected)
            rotation = (left @ right).T
        blocks.append(block @ rotation)
    return torch.cat(blocks, dim=1)


def eigen(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (k,), ascending, and eigenvectors (k, k), in double precision.

    In single precision the solver does not converge for few images of many dimensions, where most eigenvalues are 0.
    """
    values, vectors = torch.linalg.eigh(symmetric.double())
    return values.to(symmetric), vectors.to(symmetric)
