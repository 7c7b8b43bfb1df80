"""Rebuild nestkala/pretrained/photo_start.safetensors: codes for folders too small to fit codes to.

    python scripts/build_photo_start.py --images caltech101

On one machine the same versions give the same bytes; the SHA-256 printed belongs into nestkala/search/fitted.py.
"""

from hashlib import sha256
from pathlib import Path

import torch
import tyro
from torch import Tensor

from nestkala.backbones import load_backbone
from nestkala.heads import NestedHashHead
from nestkala.images.given import GivenImages
from nestkala.images.listing import LeftOut, images_below
from nestkala.search.fitted import START, features_of, model_without_names, shipped_tensors
from nestkala.tokens.source import TokenSource
from nestkala.training.closed_form import closed_form_of_kinds
from nestkala.utils.files import save_tensors

ROOT = Path(__file__).resolve().parents[1]


def within(features: Tensor, directions: int) -> Tensor:
    """Features (n, d) without what lies beyond their first principal directions."""
    mean = features.mean(dim=0)
    centered = (features - mean).double()
    kept = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -directions:]
    return (mean + centered @ kept @ kept.T).float()


def main(images: Path, output: Path = ROOT / "nestkala" / "pretrained" / START, directions: int = 128) -> None:
    """Compute features, fit, write the file and say what it holds.

    Args:
        images: folder of photographs, Caltech-101.
        output: file to write.
        directions: principal directions that are kept. On other photographs more made codes worse.
    """
    torch.set_num_threads(1)  # the last bit of a sum depends on how many share it
    names = [name for name, _ in images_below(images, LeftOut())]
    backbone = load_backbone("photo", num_adapted=0)
    source = TokenSource(backbone, "fp32", 128, workers=1)
    features = features_of(source, GivenImages([images / name for name in names]), [], "features")
    _, model = model_without_names(backbone)
    closed_form_of_kinds(model, within(features, directions), torch.Generator().manual_seed(0))
    assert isinstance(model.head, NestedHashHead)
    assert model.class_layer is not None
    tensors = shipped_tensors(model.head, model.class_layer, directions)
    save_tensors(output, tensors, {})
    content = output.read_bytes()
    kinds = len(model.class_layer.prototypes)
    print(f"{output}: {kinds} kinds in {len(features):,} images, {len(content):,} bytes,")
    print(f"SHA-256 {sha256(content).hexdigest()}")


if __name__ == "__main__":
    tyro.cli(main)
