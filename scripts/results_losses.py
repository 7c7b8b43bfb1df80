"""Tables over all losses on CIFAR-10: frozen, with CLoRA, with other adapters, one length at a time and nested.

    python scripts/results_losses.py --data cifar10

Every run is kept in its own folder under --runs and not repeated: an interrupted table goes on where it stopped.
With --losses A,B only these losses' runs are made, and no table: several processes can share the work.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tyro import cli

from nestkala.config import Config, load_config
from nestkala.data import load_dataset
from nestkala.data.splits import draw_split, save_split
from nestkala.errors import NestKALAError
from nestkala.experiments import finish, metrics
from nestkala.plugins import plugins

NESTED = (8, 16, 32, 64)
TABLE_1 = (16, 32, 64)
RATES = (0.001, 0.01, 0.1, 1.0)
TUNING_LENGTH, TUNING_SEED, TUNING_GALLERY = 32, 100, 2000
ADAPTERS = {
    "none": "frozen",
    "clora": "CLoRA",
    "lora": "LoRA",
    "prompts": "prompt tuning",
    "biases": "bias tuning",
    "full": "full fine-tuning",
}
BEST = 5
"""how many losses are run at 1 shot too"""


@dataclass(frozen=True)
class Settings:
    """Train and score every loss on CIFAR-10 and write the tables."""

    data: Path
    """folder of CIFAR-10's images, train/CLASS and test/CLASS"""
    runs: Path = Path("runs/results_losses")
    """folder of run folders; those that are finished are not repeated"""
    output: Path = Path("docs/results_losses")
    """.md and .json are written here"""
    backbone: str = "tiny"
    seeds: int = 3
    """0 up to this"""
    gallery: int = 5000
    """images that are searched, drawn once from all that are no queries"""
    losses: tuple[str, ...] = ()
    """make the runs of these alone, and no table"""


@dataclass(frozen=True)
class Cell:
    """What one number of a table was trained with, but for the seed."""

    loss: str
    adapter: str
    shots: int
    lengths: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.loss}-{self.adapter}-{self.shots}shot-{'_'.join(map(str, self.lengths))}bits"


class Experiment:
    """The runs behind the tables: their settings, learning rates and splits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.base = load_config("cifar10").model_dump() | {
            "data": str(settings.data.absolute()),  # a name alone could be that of a known data set
            "backbone": settings.backbone,
            "queries_per_class": None,  # splits are given
            "head_init": "random",
        }

    @cached_property
    def dataset(self) -> Any:
        return load_dataset(self.base["data"], Path())

    def finish(self, cells: Sequence[Cell]) -> None:
        """Tune what has not been tuned, then train and score all seeds of the cells."""
        pairs = dict.fromkeys((cell.loss, cell.adapter) for cell in cells)
        finish(config for pair in pairs for config in self._tuning(*pair).values())
        finish(config for cell in cells for config in self.configs(cell))

    def configs(self, cell: Cell) -> Iterator[Config]:
        """The runs of a cell, a seed each."""
        rate = self.rate(cell.loss, cell.adapter)
        for seed in range(self.settings.seeds):
            split = self._split(cell.shots, seed, self.settings.gallery)
            yield self._config(cell, seed, rate, split, f"{cell.name}-seed{seed}")

    def rate(self, loss: str, adapter: str) -> float:
        """The learning rate that was best in tuning."""
        found = {r: score(config, TUNING_LENGTH) for r, config in self._tuning(loss, adapter).items()}
        return max(found, key=lambda r: np.nan_to_num(found[r], nan=-1))

    def scores(self, cell: Cell, bits: int) -> list[float]:
        """Tie-aware mAP of each seed."""
        return [score(config, bits) for config in self.configs(cell)]

    def seconds(self, cell: Cell) -> float:
        """Of one training, the mean over the seeds."""
        finished = [found for config in self.configs(cell) if (found := metrics(config))]
        return float(np.mean([found["seconds"]["train"] for found in finished]))

    def _tuning(self, loss: str, adapter: str) -> dict[float, Config]:
        cell = Cell(loss, adapter, 8, (TUNING_LENGTH,))
        split = self._split(8, TUNING_SEED, TUNING_GALLERY)
        return {r: self._config(cell, TUNING_SEED, r, split, f"tuning/{cell.name}-lr{r:g}") for r in RATES}

    def _config(self, cell: Cell, seed: int, rate: float, split: Path, folder: str) -> Config:
        given = {
            "loss": cell.loss,
            "adapter": cell.adapter,
            "shots": cell.shots,
            "lengths": cell.lengths,
            "seed": seed,
            "lr": rate,
            "split": split,
            "output": self.settings.runs / folder,
        }
        return Config(**(self.base | given))

    def _split(self, shots: int, seed: int, gallery: int) -> Path:
        path = self.settings.runs / "splits" / f"{shots}shot-seed{seed}-gallery{gallery}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            tuning = int(seed == TUNING_SEED)  # which has queries of its own
            split = draw_split(self.dataset, shots=shots, seed=seed, queries_per_class=100, protocol_seed=tuning)
            save_split(path, replace(split, gallery=split.gallery[:gallery]), self.dataset)
        return path


def score(config: Config, bits: int) -> float:
    """Tie-aware mAP of a finished run; nan where its loss was not finite."""
    found = metrics(config)
    return float(found["lengths"][str(bits)]["map_tie_aware"]) if found else float("nan")


def main(settings: Settings) -> None:
    known = [*(name for name, plugin in plugins("losses").items() if plugin.entry.dist is None), "hashnet-hswd"]
    if unknown := set(settings.losses) - set(known):
        raise NestKALAError(f"unknown losses {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    experiment = Experiment(settings)
    losses = settings.losses or known
    experiment.finish([cell for loss in losses for cell in cells_of(loss, 8)])
    if "kiddo" in losses:
        experiment.finish([Cell("kiddo", adapter, shots, NESTED) for adapter in ADAPTERS for shots in (1, 8)])
    if settings.losses:
        return
    best = sorted(known, key=lambda loss: -frozen_mean(experiment, loss))[:BEST]
    experiment.finish([cell for loss in best for cell in cells_of(loss, 1)])


def cells_of(loss: str, shots: int) -> list[Cell]:
    """All that the tables show of a loss at this number of shots."""
    frozen = [Cell(loss, "none", shots, (bits,)) for bits in TABLE_1]
    one_by_one = [Cell(loss, "clora", shots, (bits,)) for bits in NESTED]
    return [*frozen, *one_by_one, Cell(loss, "clora", shots, NESTED)]


def frozen_mean(experiment: Experiment, loss: str) -> float:
    """Mean over lengths and seeds at 8 shots, frozen backbone: what the losses for 1 shot are chosen by."""
    return float(np.mean([experiment.scores(Cell(loss, "none", 8, (bits,)), bits) for bits in TABLE_1]))


if __name__ == "__main__":
    try:
        main(cli(Settings))
    except NestKALAError as error:
        sys.exit(f"error: {error}")
