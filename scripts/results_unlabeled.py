"""Codes that need no labels, measured: docs/results_unlabeled.md.

    python scripts/results_unlabeled.py --caltech101 data/caltech101 --coco256 data/coco256

Queries and gallery are those of `nestkala experiment photos`. Codes are fitted to the gallery alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from tabulate import tabulate
from torch import Tensor

from nestkala.backbones import Backbone, load_backbone
from nestkala.backbones.tiny_text import PROMPT
from nestkala.codes import hamming, pack
from nestkala.data import ImageDataset, load_dataset
from nestkala.data.splits import draw_split
from nestkala.evaluation import evaluate
from nestkala.evaluation.baselines import chance_level, features_map
from nestkala.evaluation.copies import NearCopies, copy_recall, draw_originals
from nestkala.experiments import mean_and_spread
from nestkala.images.decoding import decode_image
from nestkala.modeling.model import HashModel
from nestkala.search.fitted import FEWEST, model_without_names, set_shipped
from nestkala.settings.config import Config
from nestkala.tokens.source import Images
from nestkala.training.anchors import ALL_SORTS
from nestkala.training.closed_form import closed_form_of_kinds
from nestkala.training.closed_form.bits import rotated_components
from nestkala.training.steps.tokens import token_source

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = (4, 8, 16, 32, 64, 128)
SEEDS = 3
SAVED_AGAIN = {
    "saved again at quality 80": (0, 1, 80),
    "2 % cut off each side, quality 70": (0.02, 1, 70),
    "scaled to 3/4, quality 50": (0, 0.75, 50),
    "5 % cut off each side, scaled to 3/4, quality 50": (0.05, 0.75, 50),
}
"""Cut, scale and quality of copies that `nestkala duplicates` is to find."""
DISTANCES = (3, 6, 9, 12, 16)
COPIED = 120


@dataclass(frozen=True, eq=False)
class Features:
    """Of one data set, with its labels."""

    queries: Tensor
    query_labels: np.ndarray
    gallery: Tensor
    gallery_labels: np.ndarray
    copies: Tensor
    originals: np.ndarray
    saved_again: dict[str, Tensor]  # of the first originals, by what was done to them
    texts: Tensor  # of the classes that the gallery shows, seen from the midst of all sorts
    text_labels: np.ndarray


@dataclass(frozen=True)
class SavedAgain:
    """The images of a data set, each cut on all sides, scaled and saved as JPEG."""

    images: ImageDataset
    cut: float
    scale: float
    quality: int

    @property
    def names(self) -> Sequence[str]:
        """Those of the images."""
        return self.images.names

    def read(self, index: int) -> bytes:
        """One of them."""
        image = decode_image(self.images.read(index), self.names[index])
        width, height = image.size
        left, top = round(self.cut * width), round(self.cut * height)
        image = image.crop((left, top, width - left, height - top))
        buffer = BytesIO()
        size = round(self.scale * image.width), round(self.scale * image.height)
        image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=self.quality)
        return buffer.getvalue()


Encode = Callable[[Tensor], Tensor]
"""Features (n, d) -> relaxed codes (n, 128)."""

Method = Callable[[Backbone, Tensor, int], tuple[Encode, Encode]]
"""Backbone, gallery (n, d) and seed -> how to encode images, and directions of texts."""


@torch.no_grad()
def features_of(backbone: Backbone, dataset: ImageDataset, images: Images, indices: np.ndarray) -> Tensor:
    """Features (n, d) of the images named, from the cache of tokens that runs share."""
    spec, _ = model_without_names(backbone)
    source = token_source(Config(backbone="photo"), spec, backbone, dataset)
    return torch.cat([backbone.tower.tail(tokens.float()) for tokens in source.batches(images, indices.tolist(), "")])


def measured(backbone: Backbone, dataset: ImageDataset, queries: int | None) -> Features:
    """Features of the queries, the gallery, near copies of some of it, and the classes' names."""
    split = draw_split(dataset, shots=0, seed=0, queries=queries)
    originals = draw_originals(dataset, split.gallery, 0)
    assert backbone.embed_text is not None
    center = backbone.embed_text([PROMPT.format(name) for name in ALL_SORTS]).mean(dim=0)
    texts = backbone.embed_text([PROMPT.format(name.replace("_", " ")) for name in dataset.class_names])
    shown = np.asarray(dataset.targets[split.gallery].any(axis=0))
    return Features(
        features_of(backbone, dataset, dataset, split.query),
        dataset.targets[split.query],
        features_of(backbone, dataset, dataset, split.gallery),
        dataset.targets[split.gallery],
        features_of(backbone, dataset, NearCopies(dataset), split.gallery[originals]),
        originals,
        {
            what: features_of(backbone, dataset, SavedAgain(dataset, *how), split.gallery[originals[:COPIED]])
            for what, how in SAVED_AGAIN.items()
        },
        (texts - center)[torch.from_numpy(shown)],
        np.eye(len(shown))[shown] > 0,
    )


def fitted(model: HashModel) -> tuple[Encode, Encode]:
    """How a model that was set encodes images' features, and directions of texts."""
    layer = model.class_layer
    assert layer is not None
    return lambda features: model.head(layer(features)), lambda texts: model.head(layer.towards(texts))


def kinds(backbone: Backbone, gallery: Tensor, seed: int) -> tuple[Encode, Encode]:
    """What `nestkala index` does with a folder."""
    _, model = model_without_names(backbone)
    closed_form_of_kinds(model, gallery, torch.Generator().manual_seed(seed))
    return fitted(model)


def shipped(backbone: Backbone, gallery: Tensor, seed: int) -> tuple[Encode, Encode]:
    """What it does with a few images: the same codes whatever they show."""
    del gallery, seed
    _, model = model_without_names(backbone)
    set_shipped(model)
    return fitted(model)


def components(backbone: Backbone, gallery: Tensor, seed: int) -> tuple[Encode, Encode]:
    """Principal directions in blocks of 64, each rotated by ITQ."""
    del backbone
    generator = torch.Generator().manual_seed(seed)
    mean = gallery.mean(dim=0)
    units = F.normalize(gallery - mean, dim=1)
    order = torch.linalg.eigh((units.T @ units).double()).eigenvectors.flip(1).float()
    blocks = []
    for block in order[:, :128].split(64, dim=1):
        blocks.append(block @ rotated_components(units @ block, 64, generator))
    rows = torch.cat(blocks, dim=1)
    return lambda features: (features - mean) @ rows, lambda texts: texts @ rows


@torch.no_grad()
def scores(found: Features, encode: Encode, encode_text: Encode) -> list[list[float]]:
    """Tie-aware mAP of image queries, that of class names, and copy@1, at every length, in 0..1."""
    gallery = pack(encode(found.gallery))
    by_image = evaluate(pack(encode(found.queries)), found.query_labels, gallery, found.gallery_labels, LENGTHS)
    by_text = evaluate(pack(encode_text(found.texts)), found.text_labels, gallery, found.gallery_labels, LENGTHS)
    copies = copy_recall(pack(encode(found.copies)), gallery, found.originals, LENGTHS)
    return [
        [by_image[bits].map_tie_aware for bits in LENGTHS],
        [by_text[bits].map_tie_aware for bits in LENGTHS],
        [copies[bits].at_1 for bits in LENGTHS],
    ]


@torch.no_grad()
def near_duplicates(found: Features, encode: Encode) -> str:
    """How many copies are within a distance of their original, and how many images within it of another, in %."""
    gallery = pack(encode(found.gallery))
    own = gallery[found.originals[:COPIED]]
    rows = []
    for what, features in found.saved_again.items():
        distances = np.bitwise_count(pack(encode(features)) ^ own).sum(axis=1)
        rows.append([what, *(100 * (distances <= most).mean() for most in DISTANCES)])
    among = hamming(gallery, gallery)
    np.fill_diagonal(among, LENGTHS[-1] + 1)
    rows.append(["images with another so near", *(100 * (among.min(axis=1) <= most).mean() for most in DISTANCES)])
    headers = ["within", *(f"{bits} of 128 bits" for bits in DISTANCES)]
    return tabulate(rows, headers, tablefmt="github", floatfmt=".1f")


def section(name: str, found: Features, backbone: Backbone, methods: Mapping[str, Method]) -> str:
    """The tables of one data set."""
    seeds = {
        method: np.array([scores(found, *make(backbone, found.gallery, seed)) for seed in range(SEEDS)])
        for method, make in methods.items()
    }  # {method: (seeds, measures, lengths)}
    queries, labels, gallery, gallery_labels = found.queries, found.query_labels, found.gallery, found.gallery_labels
    both = torch.cat([gallery, -gallery])  # whose mean is 0, so that nothing is taken away
    both_labels = np.concatenate([gallery_labels, np.zeros_like(gallery_labels)])  # what is added counts for nobody
    raw = features_map(queries, labels, both, both_labels, top_k=len(gallery))
    centered = features_map(queries, labels, gallery, gallery_labels)
    by_text = features_map(gallery.mean(dim=0) + found.texts, found.text_labels, gallery, gallery_labels)
    parts = [
        f"## {name}\n\n{len(queries):,} queries, {len(gallery):,} images in the gallery. Chance is "
        f"{100 * chance_level(labels, gallery_labels):.1f}. The features themselves, 5,120 bytes an image, reach "
        f"{100 * raw:.1f} by cosine, {100 * centered:.1f} when centered, and {100 * by_text:.1f} from class names."
    ]
    for place, title in enumerate(("mAP of images", "mAP of class names", "copy@1")):
        rows = [[method, *map(mean_and_spread, of[:, place].T)] for method, of in seeds.items()]
        headers = [title, *(f"{bits} bits" for bits in LENGTHS)]
        parts.append(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    parts.append(near_duplicates(found, kinds(backbone, gallery, 0)[0]))
    return "\n\n".join(parts)


def main(caltech101: Path, coco256: Path, output: Path = ROOT / "docs" / "results_unlabeled.md") -> None:
    """Measure, and write the tables.

    Args:
        caltech101: Caltech-101 in class folders.
        coco256: MS-COCO's 254 images with lists.
        output: file to write.
    """
    backbone = load_backbone("photo", num_adapted=0)
    caltech = measured(backbone, load_dataset(str(caltech101), Path()), 1000)
    coco = measured(backbone, load_dataset(str(coco256), Path()), None)
    own = {"fitted to the gallery": kinds, "PCA-ITQ, 64 + 64 bits": components}
    about = f"""# Codes without labels

What `nestkala index FOLDER` gives without a model: no label, no class name and no training. Clusters of the folder's
own images take the place of classes, as many as make held-out images likely. Some bits are for the cluster, the others
for the image itself. PCA-ITQ is what is usual without labels (Gong and Lazebnik, CVPR 2011); cosine among features is
what rclip and others do, with the same features. Trained codes are in [results_photos.md](results_photos.md). The
shipped codes serve folders of fewer than {FEWEST} images, which are too few to fit to; they were fitted to Caltech-101.

Tie-aware mAP x 100, and how often a cropped and re-saved copy finds its original first (copy@1, in percent); mean ±
standard deviation of {SEEDS} seeds. The last table of each set is what `nestkala duplicates` finds at which distance:
of {COPIED} photographs saved again, and of the gallery, in percent. By
`python scripts/results_unlabeled.py --caltech101 data/caltech101 --coco256 data/coco256`."""
    text = "\n\n".join(
        [
            about,
            section("Caltech-101", caltech, backbone, own),
            section("coco256", coco, backbone, own | {"shipped": shipped}),
        ]
    )
    output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    tyro.cli(main)
