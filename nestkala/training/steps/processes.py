"""The processes of a run, and its experiment tracker."""

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import filter_trackers
from accelerate.utils import DataLoaderConfiguration, InitProcessGroupKwargs

from ...settings.config import Config
from ...utils.errors import NestKALAError
from ...utils.machine import compute_threads
from ...utils.processes import PATIENCE
from ..launcher import check_launcher


def join_processes(config: Config) -> Accelerator:
    """The processes that a launcher started, or this one alone.

    Raises:
        NestKALAError: if the precision is not available, the launcher asks for something that would change the
            training, or a tracker is not installed.
    """
    torch.set_num_threads(compute_threads(config.threads))
    if config.precision == "fp16" and not torch.cuda.is_available():
        raise NestKALAError("precision fp16 needs a GPU: use bf16 or fp32 here")
    check_launcher(config.precision)
    data_seed = config.seed * 2**20  # epochs are added to it, so that no two seeds share an order
    AcceleratorState._reset_state()  # so that a second run in one process can choose another precision
    accelerator = Accelerator(
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        mixed_precision=config.precision if config.precision in ("bf16", "fp16") else "no",
        dataloader_config=DataLoaderConfiguration(split_batches=True, use_seedable_sampler=True, data_seed=data_seed),
    )
    if config.tracker != "none" and not filter_trackers(config.tracker, Path()):
        raise NestKALAError(f"tracker '{config.tracker}' is not installed: pip install {config.tracker}")
    return accelerator


def start_tracker(config: Config, accelerator: Accelerator, folder: Path) -> None:
    """Start the tracker from the settings, if any. Raises NestKALAError if it cannot start."""
    if config.tracker == "none":
        return
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers(config.tracker, folder)
    try:
        accelerator.init_trackers("nestkala", config={key: str(value) for key, value in config})
    except Exception as error:  # each tracker has its own errors
        raise NestKALAError(f"tracker '{config.tracker}' cannot start: {error}") from error
