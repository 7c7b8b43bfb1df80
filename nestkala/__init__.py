"""NestKALA: binary image codes of every length from one training run and a few labeled images per class."""

from typing import TYPE_CHECKING, Any

from .utils.machine import find_temporary_folder

if TYPE_CHECKING:
    from .hasher import Hasher as Hasher
    from .index import PrefixIndex as PrefixIndex

__version__: str

__all__ = ["Hasher", "PrefixIndex", "__version__"]

find_temporary_folder()  # before importing torch, which may import libraries that need one immediately


def __getattr__(name: str) -> Any:  # so that the command line can check settings before torch loads
    if name == "Hasher":
        from .hasher import Hasher

        return Hasher
    if name == "PrefixIndex":
        from .index import PrefixIndex

        return PrefixIndex
    if name == "__version__":
        from importlib.metadata import version

        return version("nestkala")
    raise AttributeError(f"module 'nestkala' has no attribute '{name}'")
