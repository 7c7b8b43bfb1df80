"""The CIFAR-10 table: methods and ablations over shots, lengths and seeds, as Markdown and JSON.

    python scripts/results_cifar10.py --data cifar10

Every run is kept in its own folder under --runs and not repeated: an interrupted table goes on where it stopped.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from tyro import cli

from nestkala.anchors import class_anchors
from nestkala.backbones import load_backbone
from nestkala.codes import pack
from nestkala.config import Config, load_config
from nestkala.data import load_dataset
from nestkala.data.splits import load_split
from nestkala.errors import NestKALAError
from nestkala.evaluation import evaluate
from nestkala.experiments import Run, finish, mean_and_spread
from nestkala.files import write_text
from nestkala.losses import nested_centres
from nestkala.run import token_source
from nestkala.saved_model import ModelSpec
from nestkala.zero_shot import zero_shot_labels

Scores = dict[int, list[dict[str, Any]]]
"""{shots: [{length or "mean": {measure: value}} of each seed]}."""

LENGTHS = (4, 8, 16, 32, 64)
SHOTS = (1, 2, 4, 8)
MEASURES = {"map_tie_aware": "mAP tie-aware", "map": "mAP"}


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: what the table calls it.
        settings: what differs from the project's defaults.
        published: start from KALAHash's settings instead.
        nested: one model for all lengths, or one a length.
        shots: that it is run at.
    """

    name: str
    settings: dict[str, Any]
    published: bool = False
    nested: bool = True
    shots: tuple[int, ...] = SHOTS


ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no_clora": ("without CLoRA", {"adapter": "none"}),
    "no_kiddo": ("without KIDDO", {"loss": "dpsh"}),
    "no_weighting": ("without weighting", {"weighting": "uniform"}),
    "no_distillation": ("without distillation", {"distillation": 0.0}),
}
RANDOM: dict[str, Any] = {"head_init": "random"}
METHODS = {
    "frozen": Method(
        "(a) frozen backbone and head, pairwise loss", {"adapter": "none", "loss": "dpsh"}, published=True, nested=False
    ),
    "kalahash": Method("(b) KALAHash as published", {}, published=True, nested=False),
    "zero_shot": Method("(e) zero-shot start alone", {"shots": 0}, shots=(0,)),
    "closed_form": Method("(e) with the labels, not trained", {"epochs": 0}),
    "nestkala": Method("(c) NestKALA, from (e)", {}),
    **{key: Method(f"(c) {name}", settings, shots=(1, 8)) for key, (name, settings) in ABLATIONS.items()},
    "random": Method("(c) from a random start", RANDOM),
    **{
        f"random_{key}": Method(f"(c) from a random start, {name}", RANDOM | settings, shots=(1,))
        for key, (name, settings) in ABLATIONS.items()
    },
}
INTRODUCTION = """# CIFAR-10, few-shot

`python scripts/results_cifar10.py --data cifar10`, backbone `{backbone}`.

1,000 queries, all other 59,000 images in the gallery; the images are re-encoded as JPEG, so these are not the papers'
figures. The built-in backbone saw neither images nor class names of CIFAR-10 in pretraining. Mean and standard
deviation over {seeds} seeds, which draw the labelled images, the hash centres and what starts at random. 100 epochs.
(a) and (b) train one model for each length, (c) and (e) have one for all. (e), and (c) from it, also use 1,000 images
of the gallery without their labels. Tie-aware mAP is the exact expectation over random order within equal distances;
mAP takes ties in the order of the gallery.
"""
ZERO_SHOT_LABEL = "(d) zero-shot label, its centre"


@dataclass(frozen=True)
class Settings:
    """Train and score every method on CIFAR-10 and write the table."""

    data: Path
    """folder of CIFAR-10's images, train/CLASS and test/CLASS"""
    runs: Path = Path("runs/results_cifar10")
    """folder of run folders; those that are finished are not repeated"""
    output: Path = Path("docs/results_cifar10")
    """.md and .json are written here"""
    backbone: str = "tiny"
    seeds: int = 3
    """0 up to this"""
    methods: tuple[str, ...] = tuple(METHODS)
    """keys of the rows"""


def main(settings: Settings) -> None:
    if unknown := set(settings.methods) - METHODS.keys():
        raise NestKALAError(f"unknown methods {', '.join(sorted(unknown))} (known: {', '.join(METHODS)})")
    finish(run for key in settings.methods for run in _runs(settings, key))
    cells = {key: _cells(settings, key) for key in settings.methods}
    accuracy = None
    if "zero_shot" in cells:
        accuracy, cells["zero_shot_label"] = _zero_shot_labels(settings)
    result = {"zero_shot_accuracy": accuracy, "scores": cells}
    write_text(settings.output.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    write_text(settings.output.with_suffix(".md"), _markdown(settings, cells, accuracy))
    print(f"{settings.output}.md and .json")


def _runs(settings: Settings, key: str) -> Iterator[Run]:
    method = METHODS[key]
    base = load_config("kalahash" if method.published else "cifar10")
    for shots in method.shots:
        for seed in range(settings.seeds):
            for lengths in [LENGTHS] if method.nested else [(b,) for b in LENGTHS]:
                bits = "nested" if method.nested else f"{lengths[0]}bits"
                folder = settings.runs / f"{key}-{shots}shot-seed{seed}-{bits}"
                given = {
                    "data": str(settings.data.absolute()),  # a name alone could be that of a known data set
                    "backbone": settings.backbone,
                    "shots": shots,
                    "seed": seed,
                    "lengths": lengths,
                }
                yield Run(Config(**(base.model_dump() | given | method.settings)), folder)


def _cells(settings: Settings, key: str) -> Scores:
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for run in _runs(settings, key):
        found.setdefault((run.config.shots, run.config.seed), {}).update(run.metrics["lengths"])
    cells: Scores = {}
    for (shots, _), scores in found.items():
        cells.setdefault(shots, []).append(_with_mean(scores))
    return cells


def _with_mean(scores: dict[str, Any]) -> dict[str, Any]:
    mean = {measure: statistics.mean(scores[str(b)][measure] for b in LENGTHS) for measure in MEASURES}
    return {**scores, "mean": mean}


def _zero_shot_labels(settings: Settings) -> tuple[float, Scores]:
    """Accuracy, and the scores where every image gets the hash centre of the class whose text is nearest.

    Features and texts are centred by their own mean, as the zero-shot start does it.
    """
    run = next(_runs(settings, "zero_shot"))
    config = run.config.model_copy(update={"adapter": "none"})
    backbone = load_backbone(settings.backbone, num_adapted=0)
    dataset = load_dataset(config.data, config.data_root)
    split = load_split(run.folder / "split.json", dataset)  # the same for every seed
    texts = class_anchors(config, backbone, dataset.class_names)
    source = token_source(config, ModelSpec.of_run(config, backbone, dataset.class_names), backbone, dataset)
    features = torch.cat(list(source.batches(dataset, range(len(dataset)), "zero-shot labels"))).float()
    labels = zero_shot_labels(features, texts)
    seeds = []
    for seed in range(settings.seeds):
        codes = pack(nested_centres(len(texts), LENGTHS[-1], torch.Generator().manual_seed(seed))[labels])
        query, gallery = split.query, split.gallery
        scores = evaluate(codes[query], dataset.targets[query], codes[gallery], dataset.targets[gallery], LENGTHS)
        seeds.append(_with_mean({str(bits): metrics.scores for bits, metrics in scores.items()}))
    return float((labels.numpy() == dataset.targets.argmax(axis=1)).mean()), {0: seeds}


def _markdown(settings: Settings, cells: dict[str, Scores], accuracy: float | None) -> str:
    names = {key: method.name for key, method in METHODS.items()} | {"zero_shot_label": ZERO_SHOT_LABEL}
    parts = [INTRODUCTION.format(backbone=settings.backbone, seeds=settings.seeds)]
    if accuracy is not None:
        parts.append(f"Zero-shot accuracy on all images: {100 * accuracy:.1f} %.\n")
    columns = [*map(str, LENGTHS), "mean"]
    for measure, title in MEASURES.items():
        for shots in (0, *SHOTS):
            lines = [
                [name, *(mean_and_spread([seed[column][measure] for seed in cells[key][shots]]) for column in columns)]
                for key, name in names.items()
                if shots in cells.get(key, {})
            ]
            if not lines:
                continue
            headers = ("", *(f"{b} bits" for b in LENGTHS), "mean")
            parts.append(f"**{title} x 100, {shots} shot{'s' if shots != 1 else ''}**\n")
            parts.append(tabulate(lines, headers, tablefmt="github", disable_numparse=True) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    try:
        main(cli(Settings))
    except NestKALAError as error:
        sys.exit(f"error: {error}")
