"""Checks before a run starts: named files exist, and a run can be resumed with these settings."""

from pathlib import Path

from ..utils.errors import NestKALAError
from .config import Config

FREE_ON_RESUME = {
    *("config", "resume", "epochs", "checkpoint_every", "tracker"),
    *("threads", "workers", "backend", "encode_batch_size", "cache", "cache_gb"),
}
"""Settings that may change when a run is resumed: they do not affect what an epoch computes (except for rounding)."""


def check_files(config: Config) -> None:
    """Raise NestKALAError if a file named in the settings does not exist."""
    named = {"descriptions": config.descriptions}
    if config.resume is None:  # a resumed run has its own copy of the split
        named["split"] = config.split
    if config.anchors.endswith(".npy"):
        named["anchors"] = Path(config.anchors)
    for key, path in named.items():
        if path is not None and not path.is_file():
            raise NestKALAError(f"{key}: there is no file {path}")


def check_resumable(earlier: Config, config: Config) -> None:
    """Raise NestKALAError if a run would be resumed with settings that change what it computes."""
    if config.resume is None:
        return
    compared = config.model_fields_set - FREE_ON_RESUME  # others have their default, or no effect
    for key in Config.model_fields:
        if key in compared and getattr(earlier, key) != getattr(config, key):
            raise NestKALAError(
                f"--resume continues with {key} {getattr(earlier, key)}, not {getattr(config, key)}: "
                "train into another --output instead"
            )
