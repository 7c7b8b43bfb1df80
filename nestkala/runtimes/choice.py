"""Choose the backend that computes a model's features."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..backbones import Backbone
from ..backbones.features import FeatureBackbone
from ..codes import pack
from ..modeling.model import HashModel
from ..modeling.saved_model import ModelSpec
from ..utils.errors import NestKALAError
from ..utils.files import write_text
from .agreement import MAX_DIFFERING, differing_bits, sample_images
from .cache import ExportCache
from .export import FeatureEncoder, to_onnx
from .libraries import load
from .names import FASTEST_FIRST, Backend, check_backend, check_installed, missing_packages
from .tower import RuntimeTower

logger = logging.getLogger(__name__)

_PACKAGES = ("nestkala", "torch", "timm", "open_clip_torch", "onnx", "onnxscript")
"""Packages that an export depends on, in addition to the network."""


def choose(
    backend: str,
    refusal: str,
    load_it: Callable[[str], RuntimeTower],
    objection: Callable[[str, RuntimeTower], str],
) -> tuple[Backend, RuntimeTower | None]:
    """The backend to use, and the tower that it runs; None for torch.

    Args:
        backend: one of `Backend`. "auto" takes the fastest installed one without objection. It keeps torch and logs a
            warning if there is none.
        refusal: why only torch is possible; empty if it is not.
        load_it: loads the tower into the backend of this name.
        objection: why "auto" should not use this backend and tower; empty if it may.

    Raises:
        NestKALAError: the backend is unknown, not installed, or impossible.
    """
    check_backend(backend)
    if backend == "torch":
        return "torch", None
    if backend != "auto":
        if refusal:
            raise NestKALAError(f"backend {backend} cannot run this model: {refusal}; use backend torch")
        check_installed(backend)
        return backend, load_it(backend)  # type: ignore[return-value]
    installed = [name for name in FASTEST_FIRST if not missing_packages(name)]
    reasons = [refusal] if refusal else [] if installed else [f"neither {' nor '.join(FASTEST_FIRST)} is installed"]
    for name in () if refusal else installed:
        try:
            loaded = load_it(name)
            reason = objection(name, loaded)
        except NestKALAError as error:
            reason = str(error)
        else:
            if not reason:
                return name, loaded  # type: ignore[return-value]
        reasons.append(reason)
    logger.warning("backend auto uses torch: %s", "; ".join(reasons))
    return "torch", None


def refusal_of(precision: str, frozen: Backbone) -> str:
    """Why only torch can run a model; empty if other backends can."""
    if isinstance(frozen, FeatureBackbone):
        return "it takes features and has no tower"
    if precision != "fp32":
        return f"it computes in {precision}, and other backends only in fp32"
    if frozen.tower.device.type != "cpu":
        return f"it is on device {frozen.tower.device}, and other backends use the CPU"
    return ""


def exported(backend: str, network: nn.Module, frozen: Backbone, made_of: Mapping[str, str]) -> RuntimeTower:
    """A network from prepared images to one output, exported unless it is in the cache, as the backend runs it.

    Args:
        backend: its name.
        network: network in evaluation mode.
        frozen: backbone whose images it takes.
        made_of: everything the export depends on, besides the library versions and the shape of the images.

    Raises:
        NestKALAError: torch cannot export the network, or the backend cannot run it.
    """
    example = torch.stack([frozen.preprocess(Image.new("RGB", (64, 64)))] * 2)

    def export() -> bytes:
        proto = to_onnx(network, example, ["features"])
        try:
            written: bytes = proto.SerializeToString()
        except Exception as error:  # from protobuf, if larger than 2 GB
            raise NestKALAError(f"the exported model is too large: {error}") from error
        return written

    onnx = ExportCache().get({**made_of, **_versions(), "shape": str(tuple(example.shape[1:]))}, export)
    return RuntimeTower(load(backend, onnx), frozen.tower.feature_dim)


def set_backend(backend: str, spec: ModelSpec, frozen: Backbone, model: HashModel, fingerprint: str) -> Backend:
    """Replace a model's tower and adapter with a backend that computes its features.

    The exported tower is stored in `ExportCache`. The class layer and head after the features stay in torch, since
    they take only microseconds.

    Args:
        backend: one of `Backend`. "auto" compares codes with torch's on `sample_images`, once per model.
        spec: specification of the model.
        frozen: its backbone, whose tower is replaced, too.
        model: the model, in evaluation mode.
        fingerprint: fingerprint of the whole model.

    Returns:
        The backend in use.

    Raises:
        NestKALAError: as for `choose`.
    """
    # Without an adapter, all models of a backbone share an export.
    made_of = {"network": frozen.fingerprint if spec.adapter == "none" else fingerprint}

    def objection(name: str, tower: RuntimeTower) -> str:
        differing = _differing(name, tower, made_of, frozen, model, fingerprint)
        too_many = f"{name} changes {differing:.2%} of the bits, more than {MAX_DIFFERING:.1%}"
        return "" if differing <= MAX_DIFFERING else too_many

    chosen, tower = choose(
        backend,
        refusal_of(spec.precision, frozen),
        lambda name: exported(name, FeatureEncoder(model).eval(), frozen, made_of),
        objection,
    )
    if tower is not None:
        _ = frozen.fingerprint  # computes and caches the fingerprint while the weights are here
        frozen.tower = model.tower = tower
        model.adapter = None
    return chosen


def _versions() -> dict[str, str]:
    return {package: _version(package) for package in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@torch.no_grad()
def _differing(
    backend: str,
    tower: RuntimeTower,
    made_of: Mapping[str, str],
    frozen: Backbone,
    model: HashModel,
    fingerprint: str,
) -> float:
    """The share of bits in which codes of `sample_images` differ from torch's, measured once and then cached."""
    library = {"onnx": "onnxruntime"}.get(backend, backend)
    made_of = {**made_of, **_versions(), "model": fingerprint, library: _version(library)}
    path = ExportCache().path(made_of).with_suffix(".json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        return float(json.loads(path.read_text(encoding="utf-8"))["differing_bits"])
    images = torch.stack([frozen.preprocess(image) for image in sample_images()])
    codes, others = (_codes(model, features) for features in (FeatureEncoder(model)(images), tower.embed(images)))
    differing = differing_bits(codes, others, model.head.width)
    with suppress(OSError):
        write_text(path, json.dumps({"differing_bits": differing} | made_of, indent=2) + "\n")
    return differing


def _codes(model: HashModel, features: Tensor) -> NDArray[np.uint8]:
    return pack(model.head(features if model.class_layer is None else model.class_layer(features)))
