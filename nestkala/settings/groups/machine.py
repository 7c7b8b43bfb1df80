"""The settings of the group `machine`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from ...runtimes.names import Backend
from ...utils.limits import MAX_THREADS
from .group import Settings


class MachineSettings(Settings):
    """How the run uses this machine."""

    precision: Literal["fp32", "bf16", "fp16", "fp64"] = Field(
        "fp32",
        description="numeric precision of the backbone: fp32, bf16 mixed, fp16 mixed (GPU only), or fp64 for the whole "
        "model",
    )
    threads: int = Field(
        0,
        ge=0,
        le=MAX_THREADS,
        description="CPU threads per process; 0: OMP_NUM_THREADS if you set it, otherwise all cores, divided among the "
        "processes",
    )
    workers: int | None = Field(
        None, ge=0, description="number of threads that decode images; by default one per core, at most 8"
    )
    backend: Backend = Field(
        "torch",
        description="runtime that computes the frozen backbone: onnx (ONNX Runtime) and openvino are faster than torch "
        "on CPUs; openvino-bf16 rounds to bfloat16; auto: the fastest installed one that agrees with torch",
    )
    encode_batch_size: int = Field(128, ge=1, description="images per forward pass of the frozen backbone")
    cache: Path | None = Field(
        None, description="folder for cached backbone outputs; by default NESTKALA_CACHE or ~/.cache/nestkala/tokens"
    )
    cache_gb: float = Field(
        16.0, ge=0, allow_inf_nan=False, description="largest size of the cache in GB; 0 turns it off"
    )
