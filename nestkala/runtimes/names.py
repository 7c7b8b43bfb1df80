"""Names of encoding backends, checked without importing any large library."""

from importlib.util import find_spec
from typing import Literal, get_args

from ..utils.errors import NestKALAError, unknown_name

Backend = Literal["torch", "onnx", "openvino", "openvino-bf16", "auto"]
"""Runtime that computes image features. "auto" is the fastest installed one with the same codes as torch; it is never
"openvino-bf16", whose codes differ slightly."""

FASTEST_FIRST = ("openvino", "onnx")
"""The backends other than torch, in a fixed, measured order, so that "auto" always chooses the same one."""

_PACKAGES = {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}
"""Packages by extra, which is the first word of a backend's name."""


def check_backend(name: str) -> None:
    """Raise NestKALAError for an unknown backend."""
    if name not in get_args(Backend):
        raise unknown_name("backend", name, get_args(Backend))


def missing_packages(name: str) -> list[str]:
    """The packages that a backend needs but that are not installed."""
    return [package for package in _PACKAGES.get(_extra(name), ()) if find_spec(package) is None]


def check_installed(name: str) -> None:
    """Raise NestKALAError if packages of a backend are missing, with the command to install them."""
    if missing := missing_packages(name):
        raise NestKALAError(f'backend {name} needs {", ".join(missing)}: pip install "nestkala[{_extra(name)}]"')


def _extra(name: str) -> str:
    return name.partition("-")[0]
