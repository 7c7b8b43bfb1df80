"""What must hold before a run begins: files that are there, and a run that can go on with these settings."""

from pathlib import Path

from ..utils.errors import NestKALAError
from .config import Config

FREE_ON_RESUME = {
    *("config", "resume", "epochs", "checkpoint_every", "tracker"),
    *("threads", "workers", "encode_batch_size", "cache", "cache_gb"),
}
"""Settings that may be given anew when a run goes on: they do not change what an epoch computes (but for rounding)."""


def check_files(config: Config) -> None:
    """Raise NestKALAError for a file that the settings name and that is not there."""
    named = {"descriptions": config.descriptions}
    if config.resume is None:  # a resumed run has its own copy of the split
        named["split"] = config.split
    if config.anchors.endswith(".npy"):
        named["anchors"] = Path(config.anchors)
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise NestKALAError(f"{key}: there is no file {path}")


def check_resumable(earlier: Config, config: Config) -> None:
    """Raise NestKALAError where a run is to be resumed with settings that change what it computes."""
    if config.resume is None:
        return
    compared = config.model_fields_set - FREE_ON_RESUME  # others are of their default, or have no effect
    for key in Config.model_fields:
        if key in compared and getattr(earlier, key) != getattr(config, key):
            raise NestKALAError(
                f"--resume goes on with {key} {getattr(earlier, key)}, not {getattr(config, key)}: "
                "train into another --output instead"
            )
