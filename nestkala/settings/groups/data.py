"""The settings of the group `data`."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from .group import Settings


class DataSettings(Settings):
    """Which images there are, and which of them are labelled, asked with and searched."""

    data: str = Field(
        "digits",
        description="digits (in scikit-learn), cifar10 (downloaded), or a folder: CLASS/image, SPLIT/CLASS/image, or "
        "lists train.txt, test.txt, database.txt with classnames.txt, or own features in features.npy, labels.npy; "
        "or a manifest with columns of paths and labels (.csv, .tsv, .jsonl, .parquet; MANIFEST:path=A,label=B names "
        "them), metadata.csv with file_name, COCO annotations (.json), hf:NAME-or-FOLDER, torchvision:NAME; "
        "none: an archive and classes alone, the default beside an archive",
    )
    archive: Path | None = Field(
        None,
        description="closed form: images without labels to learn from, as a rule those that are going to be "
        "searched: a folder of images at any depth, one with lists, a manifest, COCO annotations, or a text file with "
        "a path a line; images of data are left out of it, and so are unreadable ones",
    )
    classes: str | None = Field(
        None,
        description="class names with commas between them, or a file with one a line: those of data none, or of class "
        "folders where some classes have no folder",
    )
    data_root: Path = Field(Path("data"), description="where cifar10 and torchvision:NAME are, or are downloaded to")
    on_broken: Literal["error", "skip"] = Field(
        "error", description="an unreadable image stops the run, or is left out and counted"
    )
    shots: int | Literal["all"] | None = Field(
        None,
        description="labelled training images per class (usually 1 to 8), or all, however uneven; 0: codes from the "
        "class names alone; by default 1, with an archive all",
    )
    split: Path | None = Field(
        None,
        description="take training, query and gallery images from this split.json instead of drawing them",
    )
    queries: int | None = Field(
        None,
        ge=0,
        description="queries drawn in all, where the data has no test list; 0: none, and no scores; by default a tenth "
        "of the images, with an archive none",
    )
    queries_per_class: int | None = Field(None, ge=1, description="queries drawn from every class (single-label data)")
    gallery: Literal["all", "labelled"] = Field(
        "all",
        description="search the split's whole gallery, or a database of the labelled training images alone; some "
        "losses learn its codes",
    )
    train_pool: int | None = Field(
        None,
        ge=1,
        description="draw the training images from this many of the gallery; by default from all of it",
    )
    protocol_seed: int = Field(
        0, ge=0, description="draws queries and gallery order, the same for every seed (0 or more)"
    )
    top_k: int | None = Field(None, ge=1, description="score the first K results; by default the whole gallery")
    score_features: bool = Field(
        False, description="also score the frozen backbone's own features, searched by cosine, to compare codes with"
    )

    @property
    def labels_per_class(self) -> int | Literal["all"]:
        """Labelled images to train on: `shots`, or what suits the data."""
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
                raise ValueError("data none has no labelled images: leave out queries, queries_per_class and shots")
        return self
