"""The model that an index was made with; queries need the same one."""

from collections.abc import Mapping
from pathlib import Path

from ..hasher import Hasher
from ..index.contract import SearchIndex
from ..utils.errors import NestKALAError


def about_model(hasher: Hasher, model: str) -> dict[str, str]:
    """What an index stores about its model, which was loaded by the name `model`.

    Raises:
        NestKALAError: the model's codes do not nest.
    """
    if not hasher.model.head.nested:
        raise NestKALAError(f"the codes of {model} do not nest, so an index cannot search their prefixes")
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    return {"model": name, "model_fingerprint": hasher.fingerprint, "backend": hasher.backend}


def with_backend(about: Mapping[str, str]) -> dict[str, str]:
    """An index's notes, with backend torch for earlier indexes that did not note it."""
    return {"backend": "torch"} | dict(about)


def model_beside(where: str) -> Path:
    """The folder next to an index file for a model fitted to the index's own images."""
    return Path(f"{where}.model")


def hasher_of(index: SearchIndex, model: str | None = None, where: str | None = None, backend: str = "torch") -> Hasher:
    """Load the model that an index was made with.

    Args:
        index: an index with the notes from `about_model`.
        model: new location of the model, if it has moved.
        where: file of the index; a model that has moved together with it is found next to it.
        backend: as for `Hasher.from_pretrained`.

    Raises:
        NestKALAError: there is no such model, it is a different one, or the backend cannot run it.
    """
    name = model or index.about.get("model")
    if name is None:
        raise NestKALAError("the index does not name its model: give it with --model")
    if model is None and where is not None and not Path(name).is_dir() and model_beside(where).is_dir():
        name = str(model_beside(where))
    hasher = Hasher.from_pretrained(name, backend=backend)
    if index.about.get("model_fingerprint") not in (None, hasher.fingerprint):
        raise NestKALAError(f"the index was made with a different model than {name}: their codes cannot be compared")
    return hasher
