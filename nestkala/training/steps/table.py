"""What a run says of itself at its end."""

from tabulate import tabulate

from ...evaluation.copies import MEANING
from ...settings.config import Config
from ..result import Result


def table(result: Result) -> str:
    """The scores by length as a Markdown table; all lengths come from the one training whose seconds it gives.

    A sentence says so where there were no queries to score with.
    """
    titles = {
        "map": "mAP",
        "map_tie_aware": "mAP tie-aware",
        "copy_recall_at_1": "copy@1",
        "copy_recall_at_10": "copy@10",
    }
    shown = {name: title for name, title in titles.items() if any(name in of for of in result.lengths.values())}
    unscored = [] if "map" in shown else ["no mAP: there are no queries (--queries N draws N of the labelled images)"]
    if not shown:
        return unscored[0]
    rows = [
        (bits, *(scores[name] for name in shown), result.seconds["train"]) for bits, scores in result.lengths.items()
    ]
    headers = ("bits", *shown.values(), "seconds")
    scores = tabulate(rows, headers, tablefmt="github", floatfmt=("", *(".4f" for _ in shown), ".1f"))
    return "\n".join([scores, *unscored])


def remarks(result: Result, config: Config) -> list[str]:
    """What a reader of the table should know."""
    seconds = result.seconds
    lines = [
        f"one model gives all lengths; seconds: {seconds['tokens']:.1f} tokens of the training images, "
        f"{seconds['train']:.1f} training, {seconds['evaluate']:.1f} encoding and evaluation"
    ]
    if any("copy_recall_at_1" in scores for scores in result.lengths.values()):
        lines.append(MEANING)
    if result.chance is not None:
        own = (
            f"; the backbone's own features reach {result.features_map:.4f}" if result.features_map is not None else ""
        )
        asked = "" if result.queries is None else f" ({result.queries:,} queries, {result.gallery:,} images searched)"
        lines.append(f"chance level of the mAP: {result.chance:.4f}{asked}{own}")
    if result.leave_one_out_accuracy is not None:
        known = "the class names and the other labels" if config.has_texts else "the other labels"
        share = f"{result.leave_one_out_accuracy:.2f}"
        lines.append(f"leave-one-out estimate: {known} give {share} of the labelled images their class")
    if result.unnamed_kinds:
        lines.append(
            f"note: the images show more kinds of things than were named: {result.unnamed_kinds} clusters without a "
            "name stand for the others (--unnamed-kinds 0 if every image is of a named class)"
        )
    if result.searched == "learned codes":
        lines.append(f"note: the gallery's codes are those that {config.loss} learned, the queries' are the network's")
    if dead := result.constant_bits:
        lines.append(
            f"warning: {len(dead)} of {config.lengths[-1]} bits are the same on all training images "
            f"(numbers {', '.join(map(str, dead))})"
        )
    return [*lines, *(f"{line} (gallery)" for line in result.warnings)]
