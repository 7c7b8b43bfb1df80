"""The results of a run: metrics.json of its folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..utils.errors import NestKALAError
from ..utils.files import write_text
from ..utils.text_files import read_json
from ..utils.validation import first_in_words

_NAME = "metrics.json"


@dataclass
class RunMetrics:
    """The contents of metrics.json.

    Attributes:
        lengths: {bits: {"map", "map_tie_aware"}}, plus "copy_recall_at_1" and "copy_recall_at_10" (`CopyRecall`) if the
            gallery holds at least two images with codes from the network; earlier versions did not write them.
        searched: what the gallery consists of: "codes of the network", or "learned codes" of a labeled database.
        seconds: for loading the tokens of the training images, training all lengths, and evaluating.
        constant_bits: bits of the longest code that are the same for all training images, numbered from 0.
        broken_images: names of unreadable images that were skipped.
        leave_one_out_accuracy: share of the labeled images that the names and the other labels classify correctly, an
            estimate that needs no queries; None if it is not available (`Classes.accuracy`).
        unnamed_kinds: number of unnamed kinds of things that the start found in the unlabeled images.
        chance: share of the gallery that is relevant, mean over the queries; None without queries.
        queries, gallery: number of query images and of searched images; None for runs of earlier versions.
        warnings: about gallery codes that carry less information than they have bits (`Collapse`), as text.
        features_map: mAP of the frozen backbone's own features by cosine, if `score_features` is set.
    """

    lengths: dict[str, dict[str, float]] = field(default_factory=dict)
    searched: str = "codes of the network"
    seconds: dict[str, float] = field(default_factory=dict)
    constant_bits: list[int] = field(default_factory=list)
    broken_images: list[str] = field(default_factory=list)
    leave_one_out_accuracy: float | None = None
    unnamed_kinds: int = 0
    chance: float | None = None
    features_map: float | None = None
    queries: int | None = None
    gallery: int | None = None
    warnings: list[str] = field(default_factory=list)


def save_metrics(run: Path, metrics: RunMetrics) -> None:
    """Write metrics.json into a run folder atomically."""
    write_text(run / _NAME, json.dumps(asdict(metrics), indent=2) + "\n")


def load_metrics(run: Path) -> RunMetrics | None:
    """The metrics of a run folder, None if there are none yet; raises NestKALAError if the file is not valid."""
    path = run / _NAME
    if not path.is_file():
        return None
    try:
        metrics = TypeAdapter(RunMetrics).validate_python(read_json(path))
    except ValidationError as error:
        raise NestKALAError(f"{path} does not contain scores: {first_in_words(error)}") from None
    if "train" not in metrics.seconds or any(
        not bits.isdecimal() or len({"map", "map_tie_aware"} & scores.keys()) == 1
        for bits, scores in metrics.lengths.items()
    ):
        raise NestKALAError(f"{path} does not contain scores: the training seconds or a length's mAP is missing")
    return metrics
