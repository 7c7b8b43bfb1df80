"""Codes before any training: in a joint image-text space the class names alone can place the hash layer."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .errors import NestKALAError
from .heads import NestedHashHead
from .losses import majority_centres, nested_centres
from .model import HashModel

_LEAST_SPREAD = 1e-6  # of rows that differ, relative to their norms; what rounding makes of equal ones is less


@torch.no_grad()
def start_from_text(
    model: HashModel, unlabelled: Iterable[Tensor], labelled: Iterable[Tensor], targets: Tensor, config: Config
) -> Tensor:
    """Set the head and `anchor_to_code` in closed form, so that an image's code is near the hash centre of its class.

    The head's weight is the ridge regression to hash centres whose every prefix separates the classes: from the
    anchors, from what labelled images there are, and from unlabelled ones, each taken for the class whose mean
    direction, over its anchor and labelled images, is nearest. Images and texts share their directions but not their
    mean: each is centred by its own and normalised, images by the mean over the unlabelled ones, over which every bit
    is then scaled to unit variance. `anchor_to_code` is the same map, scaled for the products of codes and anchors
    at all lengths to be nearest to the labels, which is what KIDDO asks.

    Args:
        model: with a nested head, whose anchors and features are in one space.
        unlabelled: tokens of images, in batches, as `Tower.trunk` gives them.
        labelled: tokens of the training images, in batches; none at 0 shots.
        targets: multi-hot labels (N, C) of the latter.
        config: ridge, text_weight, unlabelled_weight, and the seed that draws the centres.

    Returns:
        The centres (C, L), entries -1 or +1.

    Raises:
        NestKALAError: a head of another kind, anchors and features of different width, fewer than two classes,
            anchors or images that are all alike, or features that are not finite.
    """
    head = model.head
    if not isinstance(head, NestedHashHead):
        raise NestKALAError("a start from text needs the nested head: say --head nested, or --head-init random")
    anchors, weight = model.anchors, head.weight
    if anchors.shape[1] != weight.shape[1]:
        raise NestKALAError(
            f"a start from text needs anchors in the features' space, but their widths are {anchors.shape[1]} and "
            f"{weight.shape[1]}: say --head-init random"
        )
    if len(anchors) < 2:
        raise NestKALAError("a start from text needs two classes or more: say --head-init random")
    centres = nested_centres(len(anchors), head.lengths[-1], torch.Generator().manual_seed(config.seed))
    centres = centres.to(weight)
    features, known = (_features(model, weight, tokens) for tokens in (unlabelled, labelled))
    _check_spread("anchors", anchors)
    _check_spread("images", features)

    text_mean, image_mean = anchors.mean(dim=0), features.mean(dim=0)
    texts, images, others = (
        F.normalize(centred, dim=1) for centred in (anchors - text_mean, known - image_mean, features - image_mean)
    )
    guessed = _nearest(others, config.text_weight * texts + targets.to(images).T @ images)  # (n,), classes
    inputs = torch.cat([texts, images, others])  # (C + N + n, d)
    outputs = torch.cat([centres, majority_centres(targets.to(centres), centres), centres[guessed]])
    counts = torch.repeat_interleave(
        weight.new_tensor([config.text_weight, 1.0, config.unlabelled_weight]),
        torch.tensor([len(texts), len(images), len(others)], device=weight.device),
    )
    solution = ridge_regression(inputs, outputs, counts, config.ridge)  # (L, d)

    projected = (features - image_mean) @ solution.T
    deviation = projected.std(dim=0)
    if not (deviation > 0).all():
        raise NestKALAError(f"a start from text needs images that differ, and these {len(features)} do not")
    weight.copy_(solution / deviation[:, None])
    offset = weight @ image_mean
    if isinstance(head.norm, nn.BatchNorm1d):
        head.norm.get_buffer("running_mean").copy_(offset)
        head.norm.get_buffer("running_var").fill_(1)
    else:
        head.linear.bias.copy_(-offset)

    scale = _scale_to_labels(centres, head.lengths) / (anchors - text_mean).norm(dim=1).mean()
    model.anchor_to_code.weight.copy_(scale * solution)
    model.anchor_to_code.bias.copy_(-scale * solution @ text_mean)
    return centres


def zero_shot_labels(features: Tensor, texts: Tensor) -> Tensor:
    """The class (n) of each feature (n, d): of which text (C, d) is nearest, both centred by their own mean."""
    return _nearest(features - features.mean(dim=0), texts - texts.mean(dim=0))


def ridge_regression(inputs: Tensor, outputs: Tensor, counts: Tensor, ridge: float) -> Tensor:
    """W (L, d) that minimises sum_i counts_i |W x_i - y_i|^2 + ridge |W|^2, for inputs (n, d) and outputs (n, L)."""
    weighted = counts[:, None] * inputs
    gram = inputs.T @ weighted + ridge * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    return torch.linalg.solve(gram, weighted.T @ outputs).T


def _nearest(directions: Tensor, prototypes: Tensor) -> Tensor:
    return (directions @ F.normalize(prototypes, dim=1).T).argmax(dim=1)


def _features(model: HashModel, weight: Tensor, tokens: Iterable[Tensor]) -> Tensor:
    features = [weight.new_empty(0, weight.shape[1]), *(model.features(batch.to(weight)) for batch in tokens)]
    if wrong := sum(int((~torch.isfinite(batch)).any(dim=1).sum()) for batch in features):
        raise NestKALAError(f"a start from text needs features that are finite, and those of {wrong} images are not")
    return torch.cat(features)


def _check_spread(what: str, rows: Tensor) -> None:
    """Raise NestKALAError where the rows (n, d) differ by no more than rounding, or out of floating point's range."""
    if len(rows) > 1:
        spread = (rows - rows.mean(dim=0)).norm(dim=1).mean() / rows.norm(dim=1).mean()
        if spread > _LEAST_SPREAD:
            return
    raise NestKALAError(f"a start from text needs {what} that differ, and these {len(rows)} do not")


def _scale_to_labels(centres: Tensor, lengths: tuple[int, ...]) -> float:
    """The s that minimises |I - s Z_b Z_b^T|^2 summed over the lengths."""
    products = [centres[:, :bits] @ centres[:, :bits].T for bits in lengths]
    return sum(p.trace().item() for p in products) / sum(p.square().sum().item() for p in products)
