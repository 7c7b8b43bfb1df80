"""Tensors that ship with the package, used only if they are the published bytes."""

import json
from hashlib import sha256
from importlib.resources import files

from safetensors.torch import load
from torch import Tensor

from ..utils.errors import NestKALAError

FOLDER = files("nestkala") / "pretrained"


def load_shipped(name: str, digest: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A safetensors file of the package: its tensors by name, and its metadata.

    Args:
        name: name of the file in nestkala/pretrained.
        digest: SHA-256 that the file must have, 64 hex digits.

    Raises:
        NestKALAError: if the file is missing or unreadable, or has another digest.
    """
    try:
        content = (FOLDER / name).read_bytes()
    except OSError as error:
        raise _refusal(name, digest, error.strerror or "unreadable") from None
    found = sha256(content).hexdigest()
    if found != digest:
        raise _refusal(name, digest, f"its SHA-256 is {found}")
    header_end = 8 + int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8:header_end]).get("__metadata__", {})  # load returns only the tensors
    return load(content), metadata


def _refusal(name: str, digest: str, found: str) -> NestKALAError:
    return NestKALAError(
        f"nestkala/pretrained/{name} is not the file that came with this version ({found}; expected SHA-256 {digest}): "
        "reinstall, pip install --force-reinstall --no-deps nestkala"
    )
