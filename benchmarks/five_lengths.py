"""Five lengths from one nested training run, compared to one run per length."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from nestkala.backbones import load_backbone
from nestkala.data import ImageDataset, load_dataset
from nestkala.data.splits import draw_split
from nestkala.evaluation import evaluate
from nestkala.modeling.image_codes import packed_codes
from nestkala.settings.config import Config
from nestkala.tokens.cache import TokenCache
from nestkala.tokens.source import TokenSource
from nestkala.training.anchors import orthonormal_anchors
from nestkala.training.model_spec import spec_of_run
from nestkala.utils.seeding import seeded

from .comparison import Row, Timing
from .training import trained

LENGTHS = (4, 8, 16, 32, 64)
LARGE, SMALL = "open_clip/ViT-B-32-quickgelu:random", "tiny"
SEEDS, SHOTS = range(3), 4


def run() -> list[Row]:
    """On scikit-learn's digits, cached tokens, same epochs; quality with the built-in backbone's real weights."""
    dataset = load_dataset("digits", Path("data"))
    return [_row(dataset, LARGE, epochs=10, scored=False), _row(dataset, SMALL, epochs=100, scored=True)]


def _row(dataset: ImageDataset, name: str, epochs: int, scored: bool) -> Row:
    backbone = load_backbone(name, num_adapted=1)
    timing, against_one, points = Timing([], []), [], []
    with tempfile.TemporaryDirectory() as folder:
        source = TokenSource(backbone, "fp32", batch_size=16, workers=0, cache=TokenCache(Path(folder), name, 4e9))
        for seed in SEEDS:
            nested, together = _train(dataset, source, LENGTHS, seed, epochs, scored)
            single = {bits: _train(dataset, source, (bits,), seed, epochs, scored) for bits in LENGTHS}
            timing.ours.append(nested)
            timing.plain.append(sum(took for took, _ in single.values()))
            against_one.append(nested / single[LENGTHS[-1]][0])
            if scored:
                points.append(100 * np.mean([together[bits] - scores[bits] for bits, (_, scores) in single.items()]))
    measured = f"{timing.text}; {statistics.median(against_one):.2f} times the training of 64 bits alone"
    if scored:
        spread = np.std(points, ddof=1)
        measured += f"; mean tie-aware mAP {np.mean(points):+.1f} ± {spread:.1f} points over {len(SEEDS)} seeds"
    return Row(
        f"five lengths, {SHOTS} shots of digits, {epochs} epochs, {name}",
        "five trainings of one length",
        measured,
        "4 times" + (", quality not lower" if scored else ""),
        statistics.median(timing.ratios) >= 4 and (not scored or float(np.mean(points)) >= 0),
        {"plain_s": timing.plain, "ours_s": timing.ours, "points": points, "against_one_length": against_one},
    )


def _train(
    dataset: ImageDataset, source: TokenSource, lengths: tuple[int, ...], seed: int, epochs: int, scored: bool
) -> tuple[float, dict[int, float]]:
    """Seconds of training, and the tie-aware mAP of each length if requested."""
    split = draw_split(dataset, shots=SHOTS, seed=seed, queries_per_class=10)
    config = Config(lengths=lengths, epochs=epochs, seed=seed, checkpoint_every=epochs, head_init="random")
    tokens = torch.cat(list(source.batches(dataset, split.train.tolist())))
    targets = torch.from_numpy(dataset.targets[split.train]).float()
    with seeded(seed):
        spec = spec_of_run(config, source.backbone, dataset.class_names)
        model = spec.build(source.backbone.tower, orthonormal_anchors(len(dataset.class_names), 384, seed=0))
    model, took = trained(config, model, tokens, targets)
    if not scored:
        return took, {}
    codes = [packed_codes(model, source, dataset, indices.tolist()) for indices in (split.query, split.gallery)]
    labels = dataset.targets[split.query], dataset.targets[split.gallery]
    found = evaluate(codes[0], labels[0], codes[1], labels[1], lengths)
    return took, {bits: metrics.map_tie_aware for bits, metrics in found.items()}
