"""Encoding by each backend against eager PyTorch: from photographs' files to codes, and through the network alone."""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.utils.data import DataLoader

from nestkala import Hasher
from nestkala.backbones import load_backbone
from nestkala.codes import pack
from nestkala.data import ImageDataset, load_dataset
from nestkala.evaluation import evaluate
from nestkala.modeling.model import HashModel
from nestkala.runtimes.agreement import differing_bits
from nestkala.runtimes.export import FeatureEncoder, to_onnx
from nestkala.runtimes.libraries import load
from nestkala.runtimes.names import Backend, missing_packages
from nestkala.runtimes.tower import RuntimeTower
from nestkala.search.fitted import fit_to_folder
from nestkala.utils.errors import NestKALAError
from nestkala.utils.machine import decoding_workers

from .comparison import Row, in_turn
from .first_encoding import Decoded

PHOTOGRAPHS, QUERIES, BATCH, REPEATS = 2000, 400, 128, 3
LENGTHS = (16, 64)
NETWORKS = {"photo": 128, "open_clip/ViT-B-32-quickgelu:random": 32, "open_clip/ViT-L-14-quickgelu:random": 4}
"""{backbone: images a forward pass}"""


def installed() -> list[str]:
    """The backends beside torch. Raises NestKALAError where there is none."""
    found = [name for name in get_args(Backend) if name not in ("torch", "auto") and not missing_packages(name)]
    if not found:
        raise NestKALAError('no backend to measure: pip install "nestkala[onnx,openvino]"')
    return found


def run_files(photographs: Path) -> list[Row]:
    """From files to codes of 128 bits, against a plain DataLoader and the model in eager mode, same workers.

    The codes are fitted to 2,000 photographs of the folder of class folders, drawn by seed 0.
    """
    dataset = load_dataset(str(photographs.absolute()), Path())
    drawn = np.sort(np.random.default_rng(0).permutation(len(dataset))[:PHOTOGRAPHS])
    dataset = dataset.take(drawn)
    files = [photographs / name for name in dataset.names]
    with tempfile.TemporaryDirectory() as folder:
        fit_to_folder(photographs, dataset.names, Path(folder), decoding_workers(None), backend=installed()[0])
        return [row for backend in installed() for row in _from_files(backend, Path(folder), dataset, files)]


def _from_files(backend: str, model: Path, dataset: ImageDataset, files: Sequence[Path]) -> Iterator[Row]:
    eager, hasher = Hasher.from_pretrained(model, "cpu"), Hasher.from_pretrained(model, backend=backend)
    workers, bits = decoding_workers(None), eager.lengths[-1]
    found: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def plain() -> None:
        loader = DataLoader(Decoded(dataset, eager.backbone), BATCH, num_workers=workers)
        tower = eager.model.tower
        found["torch"] = np.concatenate([pack(eager.model(tower.trunk(images))[0]) for images in loader])

    def ours() -> None:
        found[backend] = hasher.encode(files, batch_size=BATCH, workers=workers)

    timing = in_turn(plain, ours, REPEATS)
    ratio, rate = statistics.median(timing.ratios), len(files) / statistics.median(timing.ours)
    scores = {name: _scores(codes, dataset) for name, codes in found.items()}
    differing = differing_bits(found["torch"], found[backend], bits)
    yield Row(
        f"{len(files):,} photographs from file to code, photo, {backend}",
        f"eager PyTorch with a DataLoader, {workers} worker",
        f"{timing.text}; {rate:.0f} images/s",
        "5 times",
        ratio >= 5,
        {"plain_s": timing.plain, "ours_s": timing.ours},
    )
    changed = max(abs(scores["torch"][length] - scores[backend][length]) for length in LENGTHS)
    yield Row(
        f"the codes of {backend}, {len(files):,} photographs",
        "torch: mAP " + ", ".join(f"{scores['torch'][length]:.3%} at {length} bits" for length in LENGTHS),
        f"{differing:.4%} of {bits} bits differ; mAP "
        + ", ".join(f"{scores[backend][length]:.3%} at {length}" for length in LENGTHS),
        "0.1 % of bits, 0.1 points",
        differing <= 0.001 and changed <= 0.001,
        {"differing": differing, "map": scores},
    )


def _scores(codes: np.ndarray, dataset: ImageDataset) -> dict[int, float]:
    """Tie-aware mAP by length, the first of the drawn photographs as queries, in an order drawn by seed 1."""
    order = np.random.default_rng(1).permutation(len(codes))
    query, gallery = order[:QUERIES], order[QUERIES:]
    labels = dataset.targets
    found = evaluate(codes[query], labels[query], codes[gallery], labels[gallery], LENGTHS)
    return {length: found[length].map_tie_aware for length in LENGTHS}


def run_networks() -> list[Row]:
    """Through the network alone, photographs' size, random weights for CLIP's architectures."""
    return [row for backbone, images in NETWORKS.items() for row in _network(backbone, images)]


@torch.no_grad()
def _network(backbone: str, count: int) -> Iterator[Row]:
    frozen = load_backbone(backbone, num_adapted=0)
    model = HashModel(frozen.tower, torch.zeros(2, frozen.tower.feature_dim), lengths=LENGTHS).eval()
    size = frozen.preprocess.transforms[1].size  # type: ignore[attr-defined] # of the central crop
    images = torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))
    encoder = FeatureEncoder(model).eval()
    onnx = to_onnx(encoder, images[:2], ["features"]).SerializeToString()
    for backend in installed():
        tower = RuntimeTower(load(backend, onnx), frozen.tower.feature_dim)
        timing = in_turn(partial(encoder, images), partial(tower.embed, images), REPEATS)
        error = float((tower.embed(images) - encoder(images)).norm() / encoder(images).norm())
        ratio, rate = statistics.median(timing.ratios), count / statistics.median(timing.ours)
        yield Row(
            f"{count} images through {backbone}, {backend}",
            "eager PyTorch, one batch",
            f"{timing.text}; {rate:.1f} images/s; relative difference {error:.0e}",
            "2 times",
            ratio >= 2,
            {"plain_s": timing.plain, "ours_s": timing.ours, "error": error},
        )
