"""Checks what a launcher asks for through the environment: some requests would change the training."""

import os
from collections.abc import Mapping
from typing import Literal

from ..utils.errors import NestKALAError

_PRECISIONS = ("fp32", "bf16", "fp16", "fp64")
_OTHER_TRAINING = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
    "ACCELERATE_DOWNCAST_BF16": "bf16 instead of fp32 on TPUs",
    "XLA_DOWNCAST_BF16": "bf16 instead of fp32 on TPUs",
    "XLA_USE_BF16": "bf16 instead of fp32 on TPUs",
}
"""Accelerate's switches, and what each turns on."""
_OFF = ("", "0", "false", "no", "off", "f", "n")


def check_launcher(
    precision: Literal["fp32", "bf16", "fp16", "fp64"], environment: Mapping[str, str] = os.environ
) -> None:
    """Reject requests of a launcher that would change the training.

    Args:
        precision: the precision from the settings.
        environment: environment variables of this process, which Accelerate reads.

    Raises:
        NestKALAError: names what was requested, and how to proceed.
    """
    mixed = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if mixed not in ("no", precision):
        way_on = f"use --precision {mixed}" if mixed in _PRECISIONS else f"choose one of {', '.join(_PRECISIONS)}"
        raise NestKALAError(
            f"the launcher asks for mixed precision {mixed}, but the settings ask for {precision}: {way_on}"
        )
    steps = environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps != "1":
        raise NestKALAError(
            f"the launcher asks for gradient accumulation, ACCELERATE_GRADIENT_ACCUMULATION_STEPS={steps}: remove it, "
            "one step uses one --batch-size here"
        )
    backend = environment.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if backend.lower() not in ("", "no"):
        raise NestKALAError(
            f"the launcher asks for a compiled model, ACCELERATE_DYNAMO_BACKEND={backend}: remove it, models are not "
            "compiled here"
        )
    for name, what in _OTHER_TRAINING.items():
        if environment.get(name, "").lower() not in _OFF:
            raise NestKALAError(
                f"the launcher asks for {what}, {name}={environment[name]}: remove it, processes train on shares of a "
                "batch here (--multi_gpu)"
            )
