"""The closed-form start: class layer, hash layer and text codes from names, labels and unlabeled images."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...heads import NestedHashHead
from ...losses import nested_centers
from ...modeling.class_layer import ClassLayer
from ...modeling.model import HashModel
from ...settings.groups import StartSettings
from ...utils.errors import NestKALAError
from ...utils.seeding import seeded
from .arrangement import arrange
from .bits import class_places, class_rows, default_class_bits, detail_rows
from .classes import Classes, fit_classes, fit_kinds
from .mixture import CHUNK
from .text import fit_text, scale_to_labels

__all__ = ["Start", "closed_form", "closed_form_of_kinds", "default_class_bits", "replace_layers"]

_LEAST_SPREAD = 1e-6  # of distinct rows, relative to their norms; equal rows differ less by rounding


@dataclass(frozen=True, eq=False)
class Start:
    """The result of the closed form: the weights that a model starts from.

    Attributes:
        layer: the class layer.
        head: (weight (L, k + C), bias (L,)) of the hash layer.
        anchor_to_code: (weight (L, d_t), bias (L,)) of the map from text to codes.
        class_codes: codes common to the images of each class, (C, L), entries -1 or +1.
        text_sharpness, label_sharpness, accuracy: see `Classes`.
    """

    layer: ClassLayer
    head: tuple[Tensor, Tensor]
    anchor_to_code: tuple[Tensor, Tensor]
    class_codes: Tensor
    text_sharpness: float
    label_sharpness: float
    accuracy: float | None

    @property
    def num_unnamed(self) -> int:
        """Number of unnamed kinds of things among the images."""
        return len(self.layer.prototypes) - len(self.class_codes)

    @torch.no_grad()
    def apply(self, model: HashModel) -> None:
        """Initialize the model from this start, replacing its class layer and head."""
        replace_layers(model, self.layer, self.head)
        _copy(model.anchor_to_code, self.anchor_to_code)


@torch.no_grad()
def closed_form(
    model: HashModel,
    unlabeled: Iterable[Tensor],
    labeled: Iterable[Tensor],
    targets: Tensor,
    settings: StartSettings,
    *,
    seed: int,
    has_texts: bool,
    text_center: Tensor | None = None,
) -> Start:
    """Compute the weights that a model starts from. The model is not modified.

    Classes are learned from texts, labels and unlabeled images together (`fit_classes`); unnamed kinds of things make
    the class layer and the head wider. Some bits of the code are for the class (`class_rows`), the others for the
    individual image (`detail_rows`); `class_places` says which. Each is scaled to unit deviation. `anchor_to_code`
    maps a class's text to the code of most of its images (`fit_text`), scaled so that the products of codes and
    anchors at all lengths are closest to the labels, which is KIDDO's objective.

    Args:
        model: must have a nested head and a class layer.
        unlabeled: tokens of images, in batches, as returned by `Tower.trunk`.
        labeled: tokens of the training images, in batches; none at 0 shots.
        targets: multi-hot labels (N, C) of the training images.
        settings: class bits and unnamed kinds.
        seed: seed for centers and rotations.
        has_texts: whether the model's anchors are the embeddings of class names and should be used.
        text_center: see `fit_classes` and `fit_text`.

    Raises:
        NestKALAError: if the head is not nested, anchors and features differ in width, there are fewer than two
            classes, anchors or images are all alike, features are not finite, or a class has neither text nor label.
    """
    anchors, lengths, width = model.anchors, model.head.lengths, model.tower.feature_dim
    if not isinstance(model.head, NestedHashHead) or model.class_layer is None:
        raise NestKALAError("a closed-form start needs the nested head: use --head nested, or --head-init random")
    if len(anchors) < 2:
        raise NestKALAError("a closed-form start needs at least two classes: use --head-init random")
    texts = anchors if has_texts else None
    text_center = None if text_center is None else text_center.to(anchors)
    if texts is not None and texts.shape[1] != width:
        raise NestKALAError(
            f"a start from text needs anchors in the features' space, but their widths are {texts.shape[1]} and "
            f"{width}: use --head-init random"
        )
    targets = targets.to(anchors)
    if texts is not None:
        _check_spread("anchors", texts)
    elif missing := (targets.sum(dim=0) == 0).nonzero().flatten().tolist():
        raise NestKALAError(f"without texts every class needs a labeled image, but class number {missing[0]} has none")
    without, with_label = (_features(model, anchors, tokens) for tokens in (unlabeled, labeled))
    sizes = [sum(map(len, batches)) for batches in (without, with_label)]
    everything = torch.cat([*without, *with_label])
    del without, with_label  # otherwise a large archive would be in memory twice
    images, known = everything.split(sizes)
    _check_spread("images", everything)

    generator = torch.Generator().manual_seed(seed)
    unnamed = None if settings.unnamed_kinds == "auto" else settings.unnamed_kinds
    classes = fit_classes(images, known, targets, texts, generator, text_center, unnamed)
    layer, hash_layer, probabilities, codes = _layers(classes, everything, lengths[-1], settings.class_bits, generator)
    expected = probabilities.T @ codes / probabilities.sum(dim=0)[:, None].clamp(min=1e-6)  # (C, L)
    class_codes = torch.where(expected >= 0, 1.0, -1.0).to(anchors)[: len(anchors)]
    if texts is None:  # anchors are in another space, so images say nothing about them
        everything, codes = anchors[:0], codes[:0]
    weight, bias = fit_text(anchors, class_codes, everything, codes, text_center)
    scale = scale_to_labels(class_codes, lengths)
    return Start(
        layer,
        hash_layer,
        (scale * weight, scale * bias),
        class_codes,
        classes.text_sharpness,
        classes.label_sharpness,
        classes.accuracy,
    )


@torch.no_grad()
def closed_form_of_kinds(model: HashModel, features: Tensor, generator: torch.Generator) -> None:
    """Set the class layer and hash layer of a model without classes, from images alone.

    Clusters take the place of classes (`fit_kinds`); everything else is as in `closed_form`.

    Args:
        model: must have a nested head, a class layer and no classes.
        features: image features (M, d), finite.
        generator: source of randomness for clusters, centers and rotations.

    Raises:
        NestKALAError: if all images are alike, or there are fewer than two.
    """
    _check_spread("images", features)
    classes = fit_kinds(features, generator)
    layer, hash_layer, _, _ = _layers(classes, features, model.head.lengths[-1], None, generator, are_named=False)
    replace_layers(model, layer, hash_layer)


def _layers(
    classes: Classes,
    images: Tensor,
    bits: int,
    class_bits: int | None,
    generator: torch.Generator,
    are_named: bool = True,
) -> tuple[ClassLayer, tuple[Tensor, Tensor], Tensor, Tensor]:
    """Class layer, weight and bias of the hash layer, and the images' probabilities (M, C) and codes (M, L)."""
    layer = ClassLayer(images.shape[1], len(classes.prototypes)).to(images)
    for name in ("mean", "basis", "whitening", "prototypes"):
        getattr(layer, name).copy_(getattr(classes, name))
    units = torch.cat([layer.units(rows) for rows in images.split(CHUNK)])
    probabilities = torch.cat([layer.probabilities(rows) for rows in units.split(CHUNK)])
    few_images = len(units) < len(classes.mean)
    for_class = class_places(bits, class_bits, few_images, are_named).to(units.device)
    rows = _rows(for_class, few_images, classes, units, probabilities, generator)  # (L, k + C)
    chunks = zip(units.split(CHUNK), probabilities.split(CHUNK), strict=True)
    logits = torch.cat([torch.cat(chunk, dim=1) @ rows.T for chunk in chunks])  # (M, L)
    offset, deviation = rows[:, : layer.width] @ units.mean(dim=0), logits.std(dim=0)
    if not (deviation > 0).all():
        raise NestKALAError(f"a closed-form start needs images that differ, but these {len(logits)} do not")
    codes = torch.where(logits >= offset, 1.0, -1.0).to(images)
    return layer, (rows / deviation[:, None], -offset / deviation), probabilities, codes


@torch.no_grad()
def replace_layers(model: HashModel, layer: ClassLayer, hash_layer: tuple[Tensor, Tensor]) -> None:
    """Give the model this class layer and a nested head with this weight (L, k + C) and bias (L,)."""
    with seeded(0):  # the random weights are overwritten
        head = NestedHashHead(layer.out_features, model.head.lengths).to(layer.mean)
    _copy(head.linear, hash_layer)
    model.class_layer, model.head = layer, head


def _copy(linear: nn.Linear, values: tuple[Tensor, Tensor]) -> None:
    for parameter, value in zip((linear.weight, linear.bias), values, strict=True):
        parameter.copy_(value)


def _rows(
    for_class: Tensor,
    few_images: bool,
    classes: Classes,
    units: Tensor,
    probabilities: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The hash layer's weight (bits, k + C), applied to unit features and class probabilities."""
    overlap = probabilities.T @ probabilities
    size = overlap.diagonal().clamp(min=1e-12).rsqrt()
    centers = nested_centers(probabilities.shape[1], int(for_class.sum()), generator).to(units)
    centers = arrange(centers, overlap * size[:, None] * size)
    rows = units.new_empty(len(for_class), units.shape[1] + probabilities.shape[1])
    rows[for_class] = class_rows(units, classes.whitening, centers, generator)
    if not for_class.all():
        variances, for_image = (classes.variances, classes.mean_variance), int((~for_class).sum())
        rows[~for_class] = detail_rows(units, probabilities, *variances, for_image, generator, few_images)
    return rows


def _features(model: HashModel, like: Tensor, tokens: Iterable[Tensor]) -> list[Tensor]:
    features = [like.new_empty(0, model.tower.feature_dim), *(model.features(batch.to(like)) for batch in tokens)]
    if wrong := sum(int((~torch.isfinite(batch)).any(dim=1).sum()) for batch in features):
        raise NestKALAError(f"a closed-form start needs finite features, but those of {wrong} images are not")
    return features


def _check_spread(what: str, rows: Tensor) -> None:
    """Raise NestKALAError if the rows (n, d) differ only by rounding, or exceed the range of floating point."""
    if len(rows) > 1:
        mean = rows.mean(dim=0)
        apart = torch.cat([(some - mean).norm(dim=1) for some in rows.split(CHUNK)])
        spread = apart.mean() / rows.norm(dim=1).mean()
        if spread > _LEAST_SPREAD:
            return
    raise NestKALAError(f"a closed-form start needs {what} that differ, but these {len(rows)} do not")
