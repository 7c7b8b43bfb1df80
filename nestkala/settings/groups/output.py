"""The settings of the group `output`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from .group import Settings


class OutputSettings(Settings):
    """Where a run is kept, and who is told of it."""

    output: Path | None = Field(None, description="run folder to make; by default runs/DATA-SHOTSshot-seedSEED-TIME")
    resume: Path | None = Field(
        None,
        description="go on with the run in this folder, from its last checkpoint and with its settings; only "
        "epochs, tracker, checkpoint_every, threads, workers, encode_batch_size, cache and cache_gb may be given anew",
    )
    checkpoint_every: int = Field(10, ge=1, description="epochs between checkpoints (1 or more)")
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
    ] = Field("none", description="experiment tracker, as Accelerate knows them; each needs its package")
