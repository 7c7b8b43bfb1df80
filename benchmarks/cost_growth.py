"""Growth of run time with the number of training images and of searched codes."""

import statistics
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from nestkala.analysis.plots import BLUE, ORANGE, new_figure, save_figure
from nestkala.backbones import load_backbone
from nestkala.evaluation import evaluate
from nestkala.index import PrefixIndex
from nestkala.settings.config import Config
from nestkala.training.anchors import orthonormal_anchors
from nestkala.training.model_spec import spec_of_run
from nestkala.utils.seeding import seeded

from .comparison import Row, medians
from .training import trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES, CODES = (10, 50, 200, 1000, 5000), (60_000, 250_000, 1_000_000, 4_000_000, 10_000_000)
CLASSES, LENGTHS, EPOCHS, QUERIES = 10, (8, 16, 32, 64), 2, 20


def run(figure: Path) -> list[Row]:
    """Compared to linear growth: the slope of log seconds over log size is 1 if cost is linear."""
    training = {num: _training_seconds(num) for num in IMAGES}
    searching = {num: _searching_seconds(num) for num in CODES}
    evaluation, search = ({num: found[k] for num, found in searching.items()} for k in range(2))
    _draw(training, evaluation, search, figure)
    sizes = f"{CODES[0]:,} to {CODES[-1]:,} codes"
    return [
        _row(f"an epoch's training, {IMAGES[0]} to {IMAGES[-1]:,} images", training),
        _row(f"evaluation of {QUERIES} queries at {len(LENGTHS)} lengths, {sizes}", evaluation),
        _row(f"search of {QUERIES} queries at {LENGTHS[-1]} bits, {sizes}", search),
    ]


def _row(what: str, found: dict[int, float]) -> Row:
    sizes, took = list(found), list(found.values())
    slope = float(np.polyfit(np.log(sizes), np.log(took), 1)[0])
    steepest = max(np.diff(np.log(took)) / np.diff(np.log(sizes)))
    return Row(
        f"growth of {what}",
        "linear growth",
        f"{took[0]:.3g} to {took[-1]:.3g} s: slope {slope:.2f}, steepest {steepest:.2f}",
        "at most linear (slope 1)",
        slope <= 1,
        {"seconds": {str(size): value for size, value in found.items()}},
    )


def _training_seconds(num_images: int) -> float:
    backbone = load_backbone("tiny", num_adapted=1)
    batch = min(8, num_images)
    config = Config(lengths=LENGTHS, epochs=EPOCHS, checkpoint_every=EPOCHS, head_init="random", batch_size=batch)
    spec = spec_of_run(config, backbone, tuple(map(str, range(CLASSES))))
    generator = torch.Generator().manual_seed(0)
    shape = backbone.tower.trunk(backbone.preprocess(Image.new("RGB", (64, 64)))[None]).shape[1:]
    tokens = torch.randn(num_images, *shape, generator=generator).half()
    targets = torch.eye(CLASSES)[torch.arange(num_images) % CLASSES]

    def once() -> float:
        with seeded(0):
            model = spec.build(backbone.tower, orthonormal_anchors(CLASSES, 384, seed=0))
        return trained(config, model, tokens, targets)[1] / EPOCHS

    return statistics.median(once() for _ in range(3))


def _searching_seconds(num_codes: int) -> tuple[float, float]:
    """Seconds of evaluation and of search, with random codes and labels."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (num_codes, LENGTHS[-1] // 8), np.uint8)
    labels = np.eye(CLASSES, dtype=bool)[rng.integers(CLASSES, size=num_codes)]
    queries, query_labels = codes[:QUERIES].copy(), labels[:QUERIES].copy()
    index = PrefixIndex.build(codes, bits=LENGTHS[-1])
    evaluation = medians(lambda: evaluate(queries, query_labels, codes, labels, LENGTHS), repeats=3)
    return evaluation[0], medians(lambda: index.search(queries, k=10), repeats=3)[0]


def _draw(training: dict[int, float], evaluation: dict[int, float], search: dict[int, float], path: Path) -> None:
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    _lines(left, {"an epoch's training": training}, "training images")
    _lines(right, {"evaluation": evaluation, "search": search}, "codes")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def _lines(axes: "Axes", found: dict[str, dict[int, float]], label: str) -> None:
    for (name, took), color, marker in zip(found.items(), (BLUE, ORANGE), "os", strict=False):
        axes.loglog(list(took), list(took.values()), marker=marker, color=color, label=name)
        sizes = list(took)
        axes.loglog(sizes, [took[sizes[0]] * size / sizes[0] for size in sizes], "--", color="gray", linewidth=1)
    axes.plot([], [], "--", color="gray", linewidth=1, label="linear")
    axes.set(xlabel=label, ylabel="seconds")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
