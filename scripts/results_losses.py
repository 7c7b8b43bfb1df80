"""Tables over all losses on CIFAR-10: frozen, with CLoRA, with other adapters, one length at a time and nested.

    python scripts/results_losses.py --data cifar10

Every run is kept in its own folder under --runs and not repeated: an interrupted table goes on where it stopped.
With --losses A,B only these losses' runs are made, and no table: several processes can share the work.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tyro import cli

from nestkala.cli import guarded
from nestkala.data import load_dataset
from nestkala.data.splits import draw_split, save_split
from nestkala.experiments import Run, finish, mean_and_spread
from nestkala.plugins import plugins
from nestkala.settings.config import without_inapplicable
from nestkala.settings.loading import load_config
from nestkala.utils.errors import NestKALAError
from nestkala.utils.files import write_text

NESTED = (8, 16, 32, 64)
TABLE_1 = (16, 32, 64)
MAH = (4, 8, 16)
BEST = 5
"""how many losses are run at 1 shot too"""
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
CENTRAL = ("csq", "dpn", "mdsh", "orthohash-arc", "orthohash-cos")
HEADS = ("flat", "cascade", "nested")
_mah = load_config("mah").model_dump(
    include={
        *("batch_norm", "weighting", "distillation", "gallery", "batch_size", "epochs"),
        *("lr", "lr_drops", "momentum", "weight_decay"),
    }
)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "independent": {"centres": "independent"},
    **{head: _mah | {"head": head} for head in HEADS},
}
"""What sets a cell apart besides loss, adapter, shots and lengths."""


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
    """What a few numbers of a table were trained with, but for the seed."""

    loss: str
    adapter: str
    shots: int
    lengths: tuple[int, ...]
    variant: str = ""

    @property
    def name(self) -> str:
        """Of its run folders."""
        bits = "_".join(map(str, self.lengths))
        return "-".join(filter(None, (self.loss, self.adapter, f"{self.shots}shot", f"{bits}bits", self.variant)))


class Experiment:
    """The runs behind the tables: their settings, learning rates, splits and scores."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cells: dict[Cell, None] = {}
        self._runs: dict[tuple[str, float], Run] = {}
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
        tuned = dict.fromkeys((cell.loss, cell.adapter) for cell in cells if "lr" not in VARIANTS[cell.variant])
        nested = dict.fromkeys((cell.loss, cell.adapter) for cell in cells if cell.lengths == NESTED)
        finish([run for pair in tuned for run in self._tuning(*pair).values()])
        finish([run for pair in nested for run in self._nested_tuning(*pair).values()])
        finish([run for cell in cells for run in self.runs(cell)])
        self.cells |= dict.fromkeys(cells)

    def runs(self, cell: Cell) -> Iterator[Run]:
        """A run a seed."""
        rate = self.rate(cell)
        for seed in range(self.settings.seeds):
            split = self._split(cell.shots, seed, self.settings.gallery)
            yield self._run(cell, seed, rate, split, f"{cell.name}-seed{seed}")

    def rate(self, cell: Cell) -> float:
        """The learning rate: a variant's own, or what was best in tuning loss and adapter, at one length or nested."""
        if "lr" in VARIANTS[cell.variant]:
            return float(VARIANTS[cell.variant]["lr"])
        tune = self._nested_tuning if cell.lengths == NESTED else self._tuning
        return _best(tune(cell.loss, cell.adapter))

    def scores(self, cells: Sequence[Cell], lengths: Sequence[int]) -> NDArray[np.float64]:
        """Tie-aware mAP (seeds, lengths), each length from the first of the cells that has it; nan: diverged."""
        of_length = [next(cell for cell in cells if bits in cell.lengths) for bits in lengths]
        columns = [
            [_score(run, bits) for run in self.runs(cell)] for cell, bits in zip(of_length, lengths, strict=True)
        ]
        return np.array(columns).T

    def seconds(self, cells: Sequence[Cell]) -> float:
        """Of training all the cells, the mean over the seeds."""
        finished = [[run.metrics for run in self.runs(cell) if not run.has_diverged] for cell in cells]
        return float(sum(np.mean([found["seconds"]["train"] for found in of_cell]) for of_cell in finished))

    def as_json(self) -> list[dict[str, Any]]:
        """Every cell with its learning rate and what each seed's run left."""
        return [
            {
                **asdict(cell),
                "lr": self.rate(cell),
                "seeds": [None if run.has_diverged else run.metrics for run in self.runs(cell)],
            }
            for cell in self.cells
        ]

    def _tuning(self, loss: str, adapter: str) -> dict[float, Run]:
        return self._at_rates(Cell(loss, adapter, 8, (TUNING_LENGTH,)), RATES)

    def _nested_tuning(self, loss: str, adapter: str) -> dict[float, Run]:
        rate = _best(self._tuning(loss, adapter))
        return self._at_rates(Cell(loss, adapter, 8, NESTED), (rate, rate / 10))  # whose gradient is of all lengths

    def _at_rates(self, cell: Cell, rates: Sequence[float]) -> dict[float, Run]:
        split = self._split(8, TUNING_SEED, TUNING_GALLERY)
        return {r: self._run(cell, TUNING_SEED, r, split, f"tuning/{cell.name}-lr{r:g}") for r in rates}

    def _run(self, cell: Cell, seed: int, rate: float, split: Path, folder: str) -> Run:
        if (folder, rate) not in self._runs:  # settings take long to check, and tables ask for them many times
            given = {key: value for key, value in asdict(cell).items() if key != "variant"}
            given |= {"seed": seed, "lr": rate, "split": split}
            values = self.base | VARIANTS[cell.variant] | given
            config = without_inapplicable(values, values.keys())  # a cell gives all, of which some have no effect
            self._runs[folder, rate] = Run(config, self.settings.runs / folder)
        return self._runs[folder, rate]

    def _split(self, shots: int, seed: int, gallery: int) -> Path:
        path = self.settings.runs / "splits" / f"{shots}shot-seed{seed}-gallery{gallery}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            tuning = int(seed == TUNING_SEED)  # which has queries of its own
            split = draw_split(self.dataset, shots=shots, seed=seed, queries_per_class=100, protocol_seed=tuning)
            save_split(path, replace(split, gallery=split.gallery[:gallery]), self.dataset)
        return path


def _best(tuning: dict[float, Run]) -> float:
    """The rate of the best mean score over the lengths; what diverged comes last."""
    scores = {rate: np.mean([_score(run, bits) for bits in run.config.lengths]) for rate, run in tuning.items()}
    return max(scores, key=lambda rate: np.nan_to_num(scores[rate], nan=-1))


def _score(run: Run, bits: int) -> float:
    return float("nan") if run.has_diverged else float(run.metrics["lengths"][str(bits)]["map_tie_aware"])


def main(settings: Settings) -> None:
    known = [*(name for name, plugin in plugins("losses").items() if plugin.origin == "nestkala"), "hashnet-hswd"]
    if unknown := set(settings.losses) - set(known):
        raise NestKALAError(f"unknown losses {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    experiment = Experiment(settings)
    for loss in settings.losses or known:
        experiment.finish(cells_of(loss))
    if settings.losses:
        return
    losses = sorted(known, key=lambda loss: -np.nan_to_num(experiment.scores(frozen(loss), TABLE_1)).mean())
    experiment.finish([cell for loss in losses[:BEST] for cell in (*frozen(loss, 1), *one_by_one(loss, 1))])
    experiment.finish([nested(loss, 1) for loss in losses[:BEST]])
    tables = [table(experiment, losses) for table in (losses_table, clora_table, nesting_table)]
    tables += [table(experiment) for table in (adapters_table, centres_table, heads_table)]
    introduction = INTRODUCTION.format(**vars(settings), rates=", ".join(f"{rate:g}" for rate in RATES))
    write_text(settings.output.with_suffix(".md"), "\n".join([introduction, *tables]))
    write_text(settings.output.with_suffix(".json"), json.dumps(experiment.as_json(), indent=1) + "\n")
    print(f"{settings.output}.md and .json")


def frozen(loss: str, shots: int = 8) -> list[Cell]:
    return [Cell(loss, "none", shots, (bits,)) for bits in TABLE_1]


def one_by_one(loss: str, shots: int = 8) -> list[Cell]:
    return [Cell(loss, "clora", shots, (bits,)) for bits in NESTED]


def nested(loss: str, shots: int = 8) -> Cell:
    return Cell(loss, "clora", shots, NESTED)


def adapted(adapter: str, shots: int) -> Cell:
    return Cell("kiddo", adapter, shots, NESTED)


def centres(loss: str, variant: str) -> Cell:
    return Cell(loss, "none", 8, NESTED, variant)


def head(name: str) -> Cell:
    return Cell("adsh", "none", 500, MAH, name)


def cells_of(loss: str) -> list[Cell]:
    """All that the tables show of a loss, but for 1 shot."""
    cells = [*frozen(loss), *one_by_one(loss), nested(loss)]
    if loss == "kiddo":
        cells += [adapted(adapter, shots) for adapter in ADAPTERS for shots in (1, 8)]
    if loss in CENTRAL:
        cells += [centres(loss, variant) for variant in ("", "independent")]
    if loss == "adsh":
        cells += [head(name) for name in HEADS]
    return cells


INTRODUCTION = """# Losses, adapters and heads on CIFAR-10

`python scripts/results_losses.py --data cifar10`, backbone `{backbone}`.

Tie-aware mAP x 100, mean and standard deviation over {seeds} seeds, which draw the labeled images and all that starts
at random. 1,000 queries, {gallery:,} images in the gallery, drawn from the 59,000 others. The images are re-encoded as
JPEG, so these are not the papers' figures. Every loss starts from a random head with BatchNorm and trains 100 epochs of
batches of 8, unless said otherwise. Its learning rate is the best of {rates} for that loss and adapter, at 32 bits
and 8 shots, by a draw of labeled images and queries of its own; nested, it is the better of that and a tenth of it.
Seconds are of training alone, as the runs came.
"""


def losses_table(experiment: Experiment, losses: Sequence[str]) -> str:
    """In the shape of KALAHash's Table 1."""
    rows = []
    for loss in losses:
        eight = experiment.scores(frozen(loss), TABLE_1)
        one = experiment.scores(frozen(loss, 1), TABLE_1) if loss in losses[:BEST] else None
        rows.append([loss, *_row(eight), *(_row(one) if one is not None else [""] * 4)])
    eight = experiment.scores(one_by_one("kiddo"), TABLE_1)
    one = experiment.scores(one_by_one("kiddo", 1), TABLE_1) if "kiddo" in losses[:BEST] else None
    rows.append(["KALAHash: kiddo and CLoRA", *_row(eight), *(_row(one) if one is not None else [""] * 4)])
    headers = ["", *(f"{shots} shot{'s' * (shots > 1)}, {b}" for shots in (8, 1) for b in (*TABLE_1, "mean"))]
    return _section("Losses on a frozen backbone, one model per length", "", headers, rows)


def clora_table(experiment: Experiment, losses: Sequence[str]) -> str:
    """In the shape of KALAHash's Table 2."""
    rows, gains = [], []
    for loss in losses:
        without = experiment.scores(frozen(loss), TABLE_1)
        with_clora = experiment.scores(one_by_one(loss), TABLE_1)
        gains.append(_gain(with_clora, without))
        rows.append([loss, *_row(with_clora), _row(without)[-1], _signed(gains[-1])])
    helped = sum(gain.mean() > 0 for gain in gains)
    claim = (
        f"*CLoRA helps every loss*: {_held(helped == len(gains))} It helped {helped} of {len(gains)}, on average over "
        f"the losses by {_signed(np.mean(gains, axis=0))}."
    )
    claim += " A run that diverged counts 0 in differences."
    headers = ["", *(f"{bits} bits" for bits in TABLE_1), "mean", "mean, frozen", "difference"]
    return _section("With CLoRA, 8 shots, one model per length", claim, headers, rows)


def adapters_table(experiment: Experiment) -> str:
    """In the shape of KALAHash's Table 4."""
    rows = [
        [title, shots, f"{experiment.rate(adapted(key, shots)):g}", *_row(experiment.scores(cells, NESTED))]
        for shots in (1, 8)
        for key, title in ADAPTERS.items()
        for cells in [[adapted(key, shots)]]
    ]
    headers = ["", "shots", "learning rate", *(f"{bits} bits" for bits in NESTED), "mean"]
    return _section("Adapters of the last block, under kiddo, one nested model", "", headers, rows)


def nesting_table(experiment: Experiment, losses: Sequence[str]) -> str:
    """In the shape of the Nested Hash Layer's main table."""
    rows, gains, ratios = [], [], []
    for shots in (8, 1):
        for loss in losses if shots == 8 else losses[:BEST]:
            apart, together = one_by_one(loss, shots), [nested(loss, shots)]
            single, whole = experiment.scores(apart, NESTED), experiment.scores(together, NESTED)
            ratio = experiment.seconds(apart) / experiment.seconds(together)
            seconds = [f"{experiment.seconds(cells):.1f}" for cells in (apart, together)]
            difference = _signed(_gain(whole, single))
            rows.append([loss, f"{shots}", "one by one", *_row(single), "", seconds[0], ""])
            rows.append(["", "", "nested", *_row(whole), difference, seconds[1], f"{ratio:.1f}"])
            if shots == 8:
                gains.append(_gain(whole, single))
                ratios.append(ratio)
    wins = sum(gain.mean() > 0 for gain in gains)
    gain = np.mean(gains, axis=0)
    claims = (
        f"*Nested beats one by one on average*: {_held(_is_clear(gain))} At 8 shots the difference "
        f"is {_signed(gain)} on average over the losses, above 0 for {wins} of {len(gains)}.\n\n"
        f"*Nested training is nearly as many times faster as there are lengths*: "
        f"{_held(bool(np.mean(ratios) > 0.8 * len(NESTED)))} For {len(NESTED)} lengths it was {np.mean(ratios):.1f} "
        f"times faster ({min(ratios):.1f} to {max(ratios):.1f})."
    )
    headers = ["", "shots", "", *(f"{bits} bits" for bits in NESTED), "mean", "difference", "seconds", "times faster"]
    return _section("One by one and nested, with CLoRA", claims, headers, rows)


def centres_table(experiment: Experiment) -> str:
    """Hash centres of a shorter length: the longer ones' prefixes, or drawn for themselves."""
    rows, gains = [], []
    for loss in CENTRAL:
        prefixes, independent = (experiment.scores([centres(loss, key)], NESTED) for key in ("", "independent"))
        gains.append(_gain(prefixes, independent))
        rows.append([loss, "prefixes", *_row(prefixes), _signed(gains[-1])])
        rows.append(["", "independent", *_row(independent), ""])
    claim = f"Prefixes compared with independent centers: {_signed(np.mean(gains, axis=0))} on average over the losses."
    headers = ["", "centers", *(f"{bits} bits" for bits in NESTED), "mean", "difference"]
    return _section("Hash centers of the shorter lengths, 8 shots, frozen backbone, nested", claim, headers, rows)


def heads_table(experiment: Experiment) -> str:
    """MAH's two heads beside the nested one."""
    scores = {name: experiment.scores([head(name)], MAH) for name in HEADS}
    rows = [[name, *_row(found), f"{experiment.seconds([head(name)]):.0f}"] for name, found in scores.items()]
    gain = 100 * (scores["cascade"] - scores["flat"])[:, 0]
    claim = (
        f"MAH's objective and schedule (`--config mah`: ADSH, {VARIANTS['flat']['epochs']} epochs, batches of "
        f"{VARIANTS['flat']['batch_size']}, learning rate {VARIANTS['flat']['lr']:g}, a tenth of it after "
        f"{', '.join(map(str, VARIANTS['flat']['lr_drops'][:3]))} epochs, no tuning), frozen backbone: the "
        "database is the 5,000 labeled images, whose learned codes are searched.\n\n"
        f"*Cascade beats flat at {MAH[0]} bits*: {_held(bool((gain > 0).all()))} The difference is {_signed(gain)}, "
        f"above 0 for {(gain > 0).sum()} of {len(gain)} seeds."
    )
    headers = ["", *(f"{bits} bits" for bits in MAH), "mean", "seconds"]
    return _section("Heads, 500 labeled images per class", claim, headers, rows)


def _section(title: str, text: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return "\n\n".join(filter(None, (f"## {title}", text, table))) + "\n"


def _row(scores: NDArray[np.float64]) -> list[str]:
    """Scores (seeds, lengths) -> a cell a length and one of their mean."""
    return [_cell(column) for column in (*scores.T, scores.mean(axis=1))]


def _cell(seeds: NDArray[np.float64]) -> str:
    diverged = int(np.isnan(seeds).sum())
    return f"{diverged} of {len(seeds)} diverged" if diverged else mean_and_spread(seeds)


def _gain(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference of the means over lengths (seeds,), in points; what diverged counts 0."""
    return 100 * (np.nan_to_num(ours) - np.nan_to_num(theirs)).mean(axis=1)


def _signed(points: NDArray[np.float64]) -> str:
    spread = points.std(ddof=1) if len(points) > 1 else 0
    return f"{points.mean():+.1f} ± {spread:.1f}"


def _is_clear(points: NDArray[np.float64]) -> bool:
    """Whether a gain is larger than its spread over the seeds."""
    return bool(points.mean() > points.std(ddof=1))


def _held(condition: bool) -> str:
    return "held." if condition else "did not hold."


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(cli(Settings))))
