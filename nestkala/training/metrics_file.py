"""What a run found: metrics.json of its folder."""

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
    """What metrics.json holds.

    Attributes:
        lengths: {bits: {"map", "map_tie_aware"}}, with "copy_recall_at_1" and "copy_recall_at_10" (`CopyRecall`) where
            the gallery holds images, two at least, whose codes are the network's; earlier versions did not give them.
        searched: what the gallery was made of: "codes of the network", or "learned codes" of a labeled database.
        seconds: of loading the tokens of the training images, training all lengths, and evaluating.
        constant_bits: bits of the longest code that are the same on all training images, numbered from 0.
        broken_images: names of unreadable images that were left out.
        leave_one_out_accuracy: share of the labeled images whose class the names and the other labels give, an
            estimate that needs no queries; None where it cannot be had (`Classes.accuracy`).
        unnamed_kinds: of things in the images without labels, beside the named classes, which the start found.
        chance: share of the gallery that is relevant, mean over the queries; None without queries.
        queries, gallery: how many images ask, and are searched; None in runs of earlier versions.
        warnings: of codes of the gallery that say less than they have bits (`Collapse`), in words.
        features_map: mAP of the frozen backbone's own features by cosine, where `score_features` asks for it.
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
    """Write metrics.json into a run folder, whole or not at all."""
    write_text(run / _NAME, json.dumps(asdict(metrics), indent=2) + "\n")


def load_metrics(run: Path) -> RunMetrics | None:
    """What `save_metrics` wrote into a run folder, None where there is none yet; raises NestKALAError for another."""
    path = run / _NAME
    if not path.is_file():
        return None
    try:
        metrics = TypeAdapter(RunMetrics).validate_python(read_json(path))
    except ValidationError as error:
        raise NestKALAError(f"{path} holds no scores: {first_in_words(error)}") from None
    if "train" not in metrics.seconds or any(
        not bits.isdecimal() or len({"map", "map_tie_aware"} & scores.keys()) == 1
        for bits, scores in metrics.lengths.items()
    ):
        raise NestKALAError(f"{path} holds no scores: it lacks the seconds of training, or one mAP of a length")
    return metrics
