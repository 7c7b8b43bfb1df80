"""Export a trained encoder to ONNX, and the codes of an index to NumPy and Faiss files."""

import copy
import json
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..backbones.features import FeatureBackbone
from ..codes import prefix
from ..hasher import Hasher
from ..index import PrefixIndex
from ..runtimes.export import to_onnx
from ..utils.errors import NestKALAError
from ..utils.files import replacing, write_text


class PackedEncoder(nn.Module):
    """Preprocessed images -> packed codes uint8 (B, ceil(b / 8)) and relaxed codes (B, b), in one module.

    Holds a copy of the model, in float32 on the CPU.

    Args:
        hasher: the model.
        bits: code length b, as for `Hasher.encode`.

    Raises:
        NestKALAError: bits is out of range.
    """

    weights: Tensor

    def __init__(self, hasher: Hasher, bits: int | None = None) -> None:
        super().__init__()
        self.where = hasher.columns(bits)
        self.model = copy.deepcopy(hasher.model).cpu().float()
        self.register_buffer("weights", 2 ** torch.arange(7, -1, -1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.tower.unchecked_trunk(images)
        h = self.model(tokens)[0][:, self.where]  # (B, b)
        ones = nn.functional.pad((h >= 0).long(), (0, -h.shape[1] % 8))
        packed = (ones.unflatten(1, (-1, 8)) * self.weights).sum(dim=2)
        return packed.to(torch.uint8), h


def export_onnx(hasher: Hasher, path: Path, bits: int | None = None) -> None:
    """Write the encoder to one ONNX file with input "images" (B, 3, H, W) and outputs "codes" and "relaxed".

    Images must be preprocessed as by `hasher.backbone.prepare`. The file's metadata describes the preprocessing and
    holds the number of bits and the model's fingerprint. Models trained on your own features take "images" (B, width).

    Raises:
        NestKALAError: bits is out of range, the model runs on a backend other than torch, or the packages for export
            are not installed.
        OSError: the file cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise NestKALAError('export to ONNX needs more packages: pip install "nestkala[export]"') from error
    if hasher.backend != "torch":
        raise NestKALAError(f"only backend torch can be exported, and this model uses {hasher.backend}")
    encoder = PackedEncoder(hasher, bits).eval()
    if isinstance(hasher.backbone, FeatureBackbone):
        example = torch.zeros(2, hasher.backbone.tower.width)
    else:
        example = torch.stack([hasher.backbone.preprocess(Image.new("RGB", (64, 64)))] * 2)
    proto = to_onnx(encoder, example, ["codes", "relaxed"])
    about = {
        "bits": encoder.where.stop - encoder.where.start,
        "fingerprint": hasher.fingerprint,
        "preprocessing": hasher.backbone.preprocessing,
    }
    onnx.helper.set_model_props(proto, {name: str(value) for name, value in about.items()})
    with replacing(path) as temporary:
        onnx.save_model(proto, str(temporary))


def export_codes(index: PrefixIndex, path: Path, bits: int | None = None) -> Path:
    """Write the packed codes of an index to a .npy file, or to a .faiss file for `faiss.read_index_binary`.

    Args:
        index: index to export.
        path: file to write; its suffix decides the format.
        bits: code length, 1 to the index's (default: the index's). Unused bits of the last byte are 0.

    Returns:
        The file of ids next to it: a JSON list in the same order.

    Raises:
        NestKALAError: bits is out of range, or the suffix is unknown.
        OSError: a file cannot be written.
    """
    bits = index.checked_bits(bits)
    if path.suffix not in (".npy", ".faiss"):
        raise NestKALAError(f"cannot write codes to {path}: the file name must end in .npy or .faiss")
    codes = prefix(index.codes, bits)
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            with temporary.open("wb") as file:
                np.save(file, codes)
        else:
            flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
            flat.add(codes)
            faiss.write_index_binary(flat, str(temporary))
    ids = path.with_suffix(".ids.json")
    write_text(ids, json.dumps(list(index.ids)))
    return ids
