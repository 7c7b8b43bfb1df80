"""All numbers in a report on a finished run."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.finished_run import FinishedRun, RunCodes, Scores, score_images, score_run
from ..codes import columns
from ..data.class_names import names_in_doubt
from ..evaluation.collapse import FEWEST, Collapse
from ..settings.config import Config
from ..training.history import Epoch, load_history
from .code_statistics import bit_statistics, embed, silhouette, similar_bits

FIRST = 10
"""Results that the verdict is of."""
_NAMED = 5

MAPPED = 1000
"""Maximum number of queries on the map and in the silhouette."""


@dataclass(frozen=True)
class LengthMeasurements:
    """Measurements at one code length b.

    Attributes:
        scores: same as `nestkala eval`.
        radius_precision: mean precision within every radius 0..b; a query that finds nothing counts 0.
        radius_recall: mean recall within every radius 0..b.
        precision_at: mean precision in the first n results, for each n in `RunMeasurements.places`.
        precision_at_first: mean precision in the first `FIRST` results, or in all of a smaller gallery.
        silhouette: 0 to 100 (`silhouette`); None for multi-label images, or if undefined.
    """

    scores: Scores
    radius_precision: list[float]
    radius_recall: list[float]
    precision_at: list[float]
    precision_at_first: float
    silhouette: float | None


@dataclass(frozen=True)
class CodeMap:
    """Codes on a map.

    Attributes:
        places: (x, y) of each of n queries.
        classes: index of its class, the first of several; -1 for none.
    """

    places: list[list[float]]
    classes: list[int]


@dataclass(frozen=True, eq=False)
class RunMeasurements:
    """Measurements of one run.

    Attributes:
        name: name of the folder.
        folder: the run's folder, as given.
        config: its settings.
        class_names: names of the C classes.
        num_train, num_queries, num_gallery: number of images in each part of the split.
        num_copies: near copies used as queries; 0 for your own features.
        multi_label: whether any query or gallery image has several labels.
        lengths: {bits: measurements}.
        places: numbers of results, 1 to the gallery size, for `precision_at`.
        chance: share of the gallery that is relevant, mean over the queries.
        warnings: about codes that carry less information than they have bits, and class names without meaning, as text.
        balance: share of ones of each bit of the longest code, over the gallery.
        correlation: of every two bits of the longest code, None if one is constant.
        map: map of the queries' longest codes, at most `MAPPED`; None if there are too few.
        history: training history, None if none was saved.
    """

    name: str
    folder: str
    config: Config
    class_names: tuple[str, ...]
    num_train: int
    num_queries: int
    num_gallery: int
    num_copies: int
    multi_label: bool
    lengths: dict[int, LengthMeasurements]
    places: list[int]
    chance: float
    warnings: list[str]
    balance: list[float]
    correlation: list[list[float | None]]
    map: CodeMap | None
    history: list[Epoch] | None

    @property
    def constant_bits(self) -> list[int]:
        """Bits, from 0, that are the same in the whole gallery."""
        return [bit for bit, share in enumerate(self.balance) if share in (0, 1)]

    def as_json(self) -> dict[str, Any]:
        """All measurements as JSON types."""
        return asdict(self) | {"config": self.config.model_dump(mode="json"), "constant_bits": self.constant_bits}


def measure(run: FinishedRun, codes: RunCodes, lengths: tuple[int, ...]) -> RunMeasurements:
    """Measure a run with the given codes, at lengths that it has."""
    dataset, split = run.data
    found = score_images(codes, lengths)
    places = np.unique(np.geomspace(1, len(codes.gallery), 60).round().astype(int)).tolist()
    multi_label = bool(max(codes.query_labels.sum(axis=1).max(), codes.gallery_labels.sum(axis=1).max()) > 1)
    chosen = np.arange(len(codes.queries))
    if len(chosen) > MAPPED:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MAPPED, replace=False))
    classes = first_labels(codes.query_labels[chosen])
    of_length = {}
    for scores in score_run(codes, lengths, found):
        counts = found[scores.bits].counts
        precision, recall = counts.precision_recall_curve()
        queries = columns(codes.queries[chosen], run.hasher.columns(scores.bits))
        of_length[scores.bits] = LengthMeasurements(
            scores,
            precision.tolist(),
            recall.tolist(),
            [float(counts.precision_at(n).mean()) for n in places],
            float(counts.precision_at(FIRST).mean()),
            None if multi_label else silhouette(queries, classes),
        )
    longest = max(lengths)
    where = run.hasher.columns(longest)
    balance, correlation = bit_statistics(columns(codes.gallery, where), longest)
    collapse = codes.collapse(longest)
    in_plane = embed(columns(codes.queries[chosen], where))
    return RunMeasurements(
        run.folder.resolve().name,
        str(run.folder),
        run.config,
        dataset.class_names,
        len(split.train),
        len(split.query),
        len(split.gallery),
        len(codes.originals),
        multi_label,
        of_length,
        places,
        codes.chance,
        [*collapse.warnings(), *_nearly_repeated(collapse, correlation), *_names_in_doubt(run)],
        balance.tolist(),
        [[None if np.isnan(value) else float(value) for value in row] for row in correlation.round(4)],
        None if in_plane is None else CodeMap(in_plane.round(3).tolist(), classes.tolist()),
        load_history(run.folder),
    )


def _nearly_repeated(collapse: Collapse, correlation: NDArray[np.float64]) -> list[str]:
    """A warning about bits that are nearly, not wholly, as another one; of few codes none."""
    if collapse.size < FEWEST:
        return []
    pairs = {bit: of for bit, of in similar_bits(correlation).items() if bit not in collapse.repeated}
    if not pairs:
        return []
    named = [f"{bit} like {other}, {abs(correlation[bit, other]):.2f}" for bit, other in list(pairs.items())[:_NAMED]]
    more = "; ..." if len(pairs) > _NAMED else ""
    return [
        f"warning: {len(pairs)} of {collapse.bits} bits nearly repeat or reverse another "
        f"(|correlation|: {'; '.join(named)}{more})"
    ]


def _names_in_doubt(run: FinishedRun) -> list[str]:
    config = run.config
    if not config.has_texts or config.descriptions is not None:
        return []
    return names_in_doubt([config.class_words.get(name, name) for name in run.hasher.class_names])


def first_labels(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The index of each row's first label, (N, C) -> (N,); -1 for a row without labels."""
    return np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
