"""Text anchors, one embedding per class: CLoRA takes its directions from them, and KIDDO its targets."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..backbones import Backbone, load_backbone
from ..data.class_names import one_form
from ..settings.groups import TextSettings
from ..utils.errors import NestKALAError, nearest
from ..utils.files import load_array
from ..utils.seeding import seeded
from ..utils.text_files import read_yaml

logger = logging.getLogger(__name__)

ALL_SORTS = (
    *("person", "child", "crowd", "hand", "dog", "cat", "horse", "bird", "fish", "insect", "snake", "monkey"),
    *("tree", "flower", "mushroom", "grass", "fruit", "vegetable", "bread", "cake", "meat", "drink", "plate", "bottle"),
    *("car", "truck", "bus", "train", "ship", "airplane", "bicycle", "road", "bridge", "house", "church", "tower"),
    *("room", "kitchen", "chair", "table", "bed", "lamp", "clock", "computer", "telephone", "book", "tool", "weapon"),
    *("shirt", "shoe", "hat", "bag", "toy", "ball", "guitar", "piano", "mountain", "beach", "sea", "sky"),
)
"""Nouns for a wide range of things that photographs show."""

_SAME = 1 - 1e-5
"""Two anchors with at least this cosine differ only by rounding."""


def class_anchors(settings: TextSettings, backbone: Backbone, class_names: Sequence[str], *, seed: int) -> Tensor:
    """The anchors K (C, d_t) that the settings ask for, float32, not normalized; the seed is for orthonormal ones.

    Raises:
        NestKALAError: if the backbone has no text tower and one is needed, a file does not match the classes,
            descriptions omit a class, or anchors are not finite.
    """
    source = settings.anchors
    if settings.descriptions is not None and not settings.has_text_tower:
        raise NestKALAError(
            f"descriptions need a text tower, but anchors '{source}' do not use one: set only one of the two"
        )
    if source == "orthonormal":
        return orthonormal_anchors(len(class_names), backbone.tower.feature_dim, seed)
    if source.endswith(".npy"):
        return _from_file(Path(source), len(class_names))
    embed = backbone.embed_text if source == "text" else load_backbone(source, num_adapted=0).embed_text
    if embed is None:
        raise NestKALAError(
            f"{backbone.name} has no text tower: use --anchors tiny, open_clip/MODEL:WEIGHTS, a .npy file "
            "(classes, width), or orthonormal"
        )
    for name in settings.class_words.keys() - set(class_names):
        logger.warning("class_words: there is no class '%s'%s", name, nearest(name, class_names))
    described = class_sentences(class_names, settings.prompts, settings.descriptions, settings.class_words)
    embedded = embed([sentence for sentences in described for sentence in sentences])
    anchors = torch.stack([part.mean(dim=0) for part in embedded.split([len(said) for said in described])])  # (C, d_t)
    return _checked(anchors, source)


def text_center(settings: TextSettings, backbone: Backbone) -> Tensor | None:
    """The mean anchor (d_t,) of nouns for a wide range of things; None if anchors do not come from a text tower.

    Raises:
        NestKALAError: as `class_anchors` does.
    """
    if not settings.has_text_tower:
        return None
    of_all_sorts = TextSettings(anchors=settings.anchors, prompts=settings.prompts)
    return class_anchors(of_all_sorts, backbone, ALL_SORTS, seed=0).mean(dim=0)


def class_sentences(
    class_names: Sequence[str],
    prompts: Sequence[str],
    descriptions: Path | None = None,
    words: Mapping[str, str] | None = None,
) -> list[list[str]]:
    """The sentences for each class: every prompt with its name (or its word) filled in, or descriptions from a file.

    Raises:
        NestKALAError: if the file does not map class names to sentences, or omits a class.
    """
    if descriptions is None:
        said = [(words or {}).get(name, name.replace("_", " ")) for name in class_names]
        return [[prompt.replace("{}", name) for prompt in prompts] for name in said]
    table = read_yaml(descriptions)  # JSON is YAML
    if not isinstance(table, dict):
        raise NestKALAError(f"{descriptions} must map class names to sentences, but holds a {type(table).__name__}")
    spellings = Counter(one_form(str(name)) for name in table)
    if twice := [name for name, count in spellings.items() if count > 1]:
        raise NestKALAError(f"{descriptions} describes the class '{twice[0]}' twice, in two Unicode forms")
    table = {one_form(str(name)): said for name, said in table.items()}
    described = []
    for name in map(one_form, class_names):
        if name not in table:
            raise NestKALAError(f"{descriptions} does not describe the class '{name}'{nearest(name, table)}")
        sentences = [table[name]] if isinstance(table[name], str) else table[name]
        if not sentences or not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise NestKALAError(f"{descriptions}: the class '{name}' needs a sentence or a list of them")
        described.append(sentences)
    return described


def alike_in_words(anchors: Tensor, class_names: Sequence[str]) -> list[str]:
    """A warning for each class whose anchor has the direction of an earlier one's, so texts cannot separate them."""
    directions = F.normalize(anchors.float(), dim=1)  # (C, d_t)
    lines = []
    for place, direction in enumerate(directions):
        earlier = (directions[:place] @ direction > _SAME).nonzero()
        if len(earlier):
            first = class_names[int(earlier[0])]
            lines.append(
                f"warning: the classes {first!r} and {class_names[place]!r} have the same text anchor: the text tower "
                "cannot tell their descriptions apart"
            )
    return lines


def orthonormal_anchors(num_classes: int, width: int, seed: int) -> Tensor:
    """Random unit vectors (num_classes, width), orthogonal if there are at most `width` of them."""
    with seeded(seed):
        draws = torch.randn(num_classes, width)
    if num_classes > width:
        return draws / draws.norm(dim=1, keepdim=True)
    return torch.linalg.qr(draws.T).Q.T.contiguous()


def _from_file(path: Path, num_classes: int) -> Tensor:
    array = load_array(path, f"anchors {path}")
    floats = np.issubdtype(array.dtype, np.floating)
    if array.ndim != 2 or len(array) != num_classes or not array.size or not floats:
        raise NestKALAError(
            f"anchors {path} must be floats ({num_classes} classes, width), not {array.dtype} {array.shape}"
        )
    with np.errstate(over="ignore"):  # reported below, with all other non-finite values
        return _checked(torch.from_numpy(array.astype(np.float32)), str(path))


def _checked(anchors: Tensor, source: str) -> Tensor:
    if not torch.isfinite(anchors).all():
        raise NestKALAError(f"the anchors from {source} are not finite")
    return anchors
