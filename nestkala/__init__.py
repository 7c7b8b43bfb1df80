"""NestKALA: binary image codes of every length from one training run and a few labelled images per class."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hasher import Hasher as Hasher

__all__ = ["Hasher"]


def __getattr__(name: str) -> Any:  # so that the command line can check settings before torch loads
    if name == "Hasher":
        from .hasher import Hasher

        return Hasher
    raise AttributeError(f"module 'nestkala' has no attribute '{name}'")
