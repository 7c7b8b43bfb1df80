"""Table titles of scores."""

SCORE_TITLES = {
    "map": "mAP",
    "map_tie_aware": "mAP tie-aware",
    "copy_recall_at_1": "copy@1",
    "copy_recall_at_10": "copy@10",
    "precision_at_100": "precision@100",
    "precision_within_2": "within 2 bits",
    "ramap_at_2": "RAMAP@2",
    "text_map_tie_aware": "text to image, tie-aware",
    "accuracy": "classified",
}
"""{score: column title}."""
