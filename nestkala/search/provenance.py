"""Which model an index was made with: its queries need the same."""

from collections.abc import Mapping
from pathlib import Path

from ..hasher import Hasher
from ..index.contract import SearchIndex
from ..utils.errors import NestKALAError


def about_model(hasher: Hasher, model: str) -> dict[str, str]:
    """What an index keeps of the model that makes its codes, which is loaded by the name `model`.

    Raises:
        NestKALAError: a model whose codes do not nest.
    """
    if not hasher.model.head.nested:
        raise NestKALAError(f"{model} gives codes that do not nest, and an index is searched by prefixes")
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    return {"model": name, "model_fingerprint": hasher.fingerprint, "backend": hasher.backend}


def with_backend(about: Mapping[str, str]) -> dict[str, str]:
    """What an index says of itself, with what earlier ones left out: they were made with torch."""
    return {"backend": "torch"} | dict(about)


def model_beside(where: str) -> Path:
    """The folder beside an index file where a model that was fitted to the index's own folder is kept."""
    return Path(f"{where}.model")


def hasher_of(index: SearchIndex, model: str | None = None, where: str | None = None, backend: str = "torch") -> Hasher:
    """The model that an index was made with.

    Args:
        index: that keeps what `about_model` gave.
        model: where it is now, if it has moved.
        where: file of the index: a model that has moved along with it is found beside it.
        backend: that computes, as for `Hasher.from_pretrained`.

    Raises:
        NestKALAError: there is no such model, it is another, or it cannot be computed by that backend.
    """
    name = model or index.about.get("model")
    if name is None:
        raise NestKALAError("the index does not say which model made its codes: name the --model")
    if model is None and where is not None and not Path(name).is_dir() and model_beside(where).is_dir():
        name = str(model_beside(where))
    hasher = Hasher.from_pretrained(name, backend=backend)
    if index.about.get("model_fingerprint") not in (None, hasher.fingerprint):
        raise NestKALAError(f"the model {name} is not the one that the index was made with: its codes would not fit")
    return hasher
