"""The settings of the group `machine`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ...utils.limits import MAX_THREADS
from .group import Settings


class MachineSettings(Settings):
    """How this machine computes."""

    precision: Literal["fp32", "bf16", "fp16", "fp64"] = Field(
        "fp32",
        description="of the backbone: fp32, mixed bf16, mixed fp16 (GPU only), or fp64 (all of the model; to compare)",
    )
    threads: int = Field(
        0,
        ge=0,
        le=MAX_THREADS,
        description="CPU threads a process; 0: OMP_NUM_THREADS where that is set (a launcher sets 1 by itself, which "
        "does not count), else all cores, shared among the processes",
    )
    workers: int | None = Field(
        None, ge=0, description="processes that decode images; by default one for every two cores, at most 8"
    )
    encode_batch_size: int = Field(128, ge=1, description="images a pass through the frozen trunk (1 or more)")
    cache: Path | None = Field(
        None, description="folder of the token cache; by default NESTKALA_CACHE or ~/.cache/nestkala/tokens"
    )
    cache_gb: float = Field(16.0, ge=0, allow_inf_nan=False, description="bound of the token cache in GB; 0: no cache")
