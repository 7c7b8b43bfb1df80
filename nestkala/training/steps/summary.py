"""What a run prints at its end."""

from tabulate import tabulate

from ...evaluation.copies import MEANING
from ...evaluation.titles import SCORE_TITLES
from ...settings.config import Config
from ..metrics_file import RunMetrics


def table(metrics: RunMetrics) -> str:
    """The scores by length as a Markdown table; all lengths come from the one training run whose seconds it gives.

    If there were no queries, it says so instead.
    """
    shown = {name: title for name, title in SCORE_TITLES.items() if any(name in of for of in metrics.lengths.values())}
    unscored = [] if "map" in shown else ["no mAP: there are no queries (--queries N draws N of the labeled images)"]
    if not shown:
        return unscored[0]
    rows = [
        (bits, *(scores[name] for name in shown), metrics.seconds["train"]) for bits, scores in metrics.lengths.items()
    ]
    headers = ("bits", *shown.values(), "seconds")
    scores = tabulate(rows, headers, tablefmt="github", floatfmt=("", *(".4f" for _ in shown), ".1f"))
    return "\n".join([scores, *unscored])


def remarks(metrics: RunMetrics, config: Config) -> list[str]:
    """Notes for a reader of the table."""
    seconds = metrics.seconds
    lines = [
        f"one model for all lengths; seconds: {seconds['tokens']:.1f} tokens of the training images, "
        f"{seconds['train']:.1f} training, {seconds['evaluate']:.1f} encoding and evaluation"
    ]
    if any("copy_recall_at_1" in scores for scores in metrics.lengths.values()):
        lines.append(MEANING)
    if metrics.chance is not None:
        own = (
            f"; the backbone's own features reach {metrics.features_map:.4f}"
            if metrics.features_map is not None
            else ""
        )
        asked = (
            "" if metrics.queries is None else f" ({metrics.queries:,} queries, {metrics.gallery:,} images searched)"
        )
        lines.append(f"chance level of the mAP: {metrics.chance:.4f}{asked}{own}")
    if metrics.leave_one_out_accuracy is not None:
        known = "the class names and the other labels" if config.has_texts else "the other labels"
        share = f"{metrics.leave_one_out_accuracy:.2f}"
        lines.append(f"leave-one-out estimate: {known} give {share} of the labeled images their class")
    if metrics.unnamed_kinds:
        lines.append(
            f"note: the images show more kinds of things than were named: {metrics.unnamed_kinds} unnamed clusters "
            "stand for the others (--unnamed-kinds 0 if every image belongs to a named class)"
        )
    if metrics.searched == "learned codes":
        lines.append(f"note: gallery codes were learned by {config.loss}, query codes come from the network")
    if dead := metrics.constant_bits:
        lines.append(
            f"warning: {len(dead)} of {config.lengths[-1]} bits are the same for all training images "
            f"(numbers {', '.join(map(str, dead))})"
        )
    return [*lines, *(f"{line} (gallery)" for line in metrics.warnings)]
