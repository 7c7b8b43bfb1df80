"""The settings of the group `output`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from .group import Settings


class OutputSettings(Settings):
    """Where results, checkpoints and logs go."""

    output: Path | None = Field(None, description="run folder to create; by default runs/DATA-SHOTSshot-seedSEED-TIME")
    resume: Path | None = Field(
        None,
        description="continue the run in this folder from its last checkpoint, with its settings; only epochs, "
        "tracker, checkpoint_every, threads, workers, encode_batch_size, cache and cache_gb may be changed",
    )
    checkpoint_every: int = Field(10, ge=1, description="epochs between checkpoints")
    tracker: Literal[
        "none",
        "tensorboard",
        "wandb",
        "comet_ml",
        "aim",
        "mlflow",
        "clearml",
        "dvclive",
        "swanlab",
        "trackio",
    ] = Field("none", description="experiment tracker that Accelerate supports; needs its own package")
