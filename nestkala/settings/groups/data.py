"""The settings of the group `data`."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .group import Settings


class DataSettings(Settings):
    """The images, and which of them are for training, which are queries and which are searched."""

    data: str = Field(
        "digits",
        description="labeled images: a folder (CLASS/image or SPLIT/CLASS/image; train.txt, test.txt, database.txt and "
        "classnames.txt; or your own features in features.npy and labels.npy), a manifest with a path and a label "
        "column (.csv, .tsv, .jsonl or .parquet; MANIFEST:path=A,label=B names the columns), a metadata.csv, COCO "
        "annotations (.json), hf:NAME-OR-FOLDER, torchvision:NAME, digits (scikit-learn's) or cifar10 (downloaded); "
        "none: train from an archive and class names only, the default with --archive",
    )
    archive: Path | None = Field(
        None,
        description="unlabeled images to learn from, usually the ones you will search: a folder, a manifest, COCO "
        "annotations, or a text file with one path per line; unreadable images, and those already in the data, are "
        "skipped (closed-form start only)",
    )
    classes: str | None = Field(
        None,
        description="class names separated by commas, or a file with one per line; needed with --data none, and to add "
        "classes that have no folder",
    )
    data_root: Path = Field(Path("data"), description="folder that cifar10 and torchvision:NAME are downloaded to")
    on_broken: Literal["error", "skip"] = Field(
        "error", description="stop at an unreadable image, or skip and count it"
    )
    shots: int | Literal["all"] | None = Field(
        None,
        description="labeled training images per class, usually 1 to 8; 0 trains from class names alone; all takes "
        "every label there is, even if classes differ in number; by default 1, or all with --archive",
    )
    split: Path | None = Field(
        None,
        description="use the training, query and gallery images listed in this split.json instead of drawing them",
    )
    queries: int | None = Field(
        None,
        ge=0,
        description="number of queries to draw if the data has no test list; 0 draws none and reports no scores; by "
        "default a tenth of the images, or 0 with --archive",
    )
    queries_per_class: int | None = Field(
        None, ge=1, description="number of queries to draw from each class (single-label data only)"
    )
    gallery: Literal["all", "labeled"] = Field(
        "all",
        description="search all gallery images, or only the labeled training images, whose codes some losses learn",
    )
    train_pool: int | None = Field(
        None,
        ge=1,
        description="draw the training images from this many gallery images instead of all of them",
    )
    protocol_seed: int = Field(
        0, ge=0, description="seed that draws the queries and the order of the gallery; independent of --seed"
    )
    top_k: int | None = Field(None, ge=1, description="score only the first K results; by default all of them")
    score_features: bool = Field(
        False, description="for comparison, also score a cosine search of the frozen backbone's features"
    )

    @property
    def labels_per_class(self) -> int | Literal["all"]:
        """Labeled images to train on: `shots`, or what suits the data."""
        if self.shots is not None:
            return self.shots
        if self.data == "none":
            return 0
        return 1 if self.archive is None else "all"

    @field_validator("shots", mode="before")
    @classmethod
    def _number_or_all(cls, shots: Any) -> Any:
        if shots in (None, "all") or (isinstance(shots, int) and not isinstance(shots, bool) and shots >= 0):
            return shots
        raise ValueError(f"shots must be a whole number of 0 or more, or all, not {shots!r}")

    @model_validator(mode="after")
    def _possible_data(self) -> Self:
        if self.queries is not None and self.queries_per_class is not None:
            raise ValueError("queries and queries_per_class exclude each other: leave one out, or None")
        if self.data == "none":
            if self.archive is None or self.classes is None:
                missing = "an archive" if self.archive is None else "classes"
                raise ValueError(f"data none needs {missing}, such as --archive photos --classes dog,cat,car")
            if self.queries or self.queries_per_class or self.labels_per_class:
                raise ValueError("data none has no labeled images: leave out queries, queries_per_class and shots")
        return self
