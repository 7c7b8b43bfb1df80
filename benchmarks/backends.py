"""Encoding with each backend compared to eager PyTorch: from photo files to codes, and through the network alone."""

import statistics
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
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

from .comparison import Row, Timing, Work, seconds
from .first_encoding import Decoded

PHOTOGRAPHS, QUERIES, BATCH, REPEATS = 2000, 400, 128, 2
LENGTHS = (16, 64)
NETWORKS = {"photo": 128, "open_clip/ViT-B-32-quickgelu:random": 32, "open_clip/ViT-L-14-quickgelu:random": 4}
"""{backbone: images per forward pass}"""


def installed() -> list[str]:
    """The backends other than torch. Raises NestKALAError if there are none."""
    found = [name for name in get_args(Backend) if name not in ("torch", "auto") and not missing_packages(name)]
    if not found:
        raise NestKALAError('no backend to measure: pip install "nestkala[onnx,openvino]"')
    return found


def run_files(photographs: Path) -> list[Row]:
    """From files to 128-bit codes, compared to a plain DataLoader and the eager model with the same workers.

    The codes are fitted to 2,000 photographs, drawn with seed 0 from the folder of class folders.
    """
    dataset = load_dataset(str(photographs.absolute()), Path())
    dataset = dataset.take(np.sort(np.random.default_rng(0).permutation(len(dataset))[:PHOTOGRAPHS]))
    files, workers = [photographs / name for name in dataset.names], decoding_workers(None)
    with tempfile.TemporaryDirectory() as folder:
        fit_to_folder(photographs, dataset.names, Path(folder), workers, backend=installed()[0])
        eager = Hasher.from_pretrained(folder, "cpu")
        hashers = {backend: Hasher.from_pretrained(folder, "cpu", backend=backend) for backend in installed()}
    codes: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def plain() -> None:
        loader, tower = DataLoader(Decoded(dataset, eager.backbone), BATCH, num_workers=workers), eager.model.tower
        codes["torch"] = np.concatenate([pack(eager.model(tower.trunk(images))[0]) for images in loader])

    def ours(backend: str) -> None:
        codes[backend] = hashers[backend].encode(files, batch_size=BATCH, workers=workers)

    times = _in_turn(plain, {backend: partial(ours, backend) for backend in hashers})
    scores = {backend: _scores(each, dataset) for backend, each in codes.items()}
    rows = []
    for backend, timing in times.items():
        ratio, rate = statistics.median(timing.ratios), len(files) / statistics.median(timing.ours)
        differing = differing_bits(codes["torch"], codes[backend], eager.lengths[-1])
        rows.append(
            Row(
                f"{len(files):,} photographs from file to code, photo, backend {backend}",
                f"eager PyTorch and a DataLoader, batches of {BATCH}, {workers} worker",
                f"{timing.text}; {rate:.0f} images/s; {differing:.4%} of the bits differ; mAP "
                f"{_in_words(scores[backend])}, torch's {_in_words(scores['torch'])}",
                "5 times",
                ratio >= 5,
                {"plain_s": timing.plain, "ours_s": timing.ours, "differing": differing, "map": scores[backend]},
            )
        )
    return rows


def _in_turn(plain: Work, ours: Mapping[str, Work]) -> dict[str, Timing]:
    """Time the baseline and each backend in turn, after one uncounted call of each backend."""
    for work in ours.values():
        work()
    rounds = [(seconds(plain), {name: seconds(work) for name, work in ours.items()}) for _ in range(REPEATS)]
    return {name: Timing([first for first, _ in rounds], [each[name] for _, each in rounds]) for name in ours}


def _in_words(scores: Mapping[int, float]) -> str:
    return " and ".join(f"{score:.2%} at {length} bits" for length, score in scores.items())


def _scores(codes: np.ndarray, dataset: ImageDataset) -> dict[int, float]:
    """Tie-aware mAP by length, with the first of the photographs, drawn with seed 1, as queries."""
    order = np.random.default_rng(1).permutation(len(codes))
    query, gallery = order[:QUERIES], order[QUERIES:]
    labels = dataset.targets
    found = evaluate(codes[query], labels[query], codes[gallery], labels[gallery], LENGTHS)
    return {length: found[length].map_tie_aware for length in LENGTHS}


def run_networks() -> list[Row]:
    """Through the network alone, at the size of photographs, with random weights for CLIP's architectures."""
    return [row for backbone, images in NETWORKS.items() for row in _network(backbone, images)]


@torch.no_grad()
def _network(backbone: str, count: int) -> Iterator[Row]:
    frozen = load_backbone(backbone, num_adapted=0)
    model = HashModel(frozen.tower, torch.zeros(2, frozen.tower.feature_dim), lengths=LENGTHS).eval()
    seen = frozen.prepare(Image.new("RGB", (64, 64)), "").shape  # (3, H, W)
    images = torch.randn(count, *seen, generator=torch.Generator().manual_seed(0))
    encoder = FeatureEncoder(model).eval()
    onnx = to_onnx(encoder, images[:2], ["features"]).SerializeToString()
    towers = {backend: RuntimeTower(load(backend, onnx), frozen.tower.feature_dim) for backend in installed()}
    expected = encoder(images)
    times = _in_turn(
        partial(encoder, images), {backend: partial(tower.embed, images) for backend, tower in towers.items()}
    )
    for backend, timing in times.items():
        error = float((towers[backend].embed(images) - expected).norm() / expected.norm())
        ratio, rate = statistics.median(timing.ratios), count / statistics.median(timing.ours)
        yield Row(
            f"{count} images through {backbone}, backend {backend}",
            "eager PyTorch, one batch",
            f"{timing.text}; {rate:.1f} images/s; relative difference of the features {error:.0e}",
            "2 times",
            ratio >= 2,
            {"plain_s": timing.plain, "ours_s": timing.ours, "error": error},
        )
