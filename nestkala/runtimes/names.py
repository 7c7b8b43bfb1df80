"""Names of encoding backends, checked without loading anything heavy."""

from importlib.util import find_spec
from typing import Literal, get_args

from ..utils.errors import NestKALAError, unknown_name

Backend = Literal["torch", "onnx", "openvino", "openvino-bf16", "auto"]
"""What computes images' features. "auto" is the fastest that is installed and gives the same codes as torch, never
"openvino-bf16", whose codes differ a little."""

FASTEST_FIRST = ("openvino", "onnx")
"""Those beside torch. Fixed by measurement, so that "auto" chooses alike in every run on a machine."""

_PACKAGES = {"onnx": ("onnxruntime", "onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript")}
"""By extra, which is the first word of a backend's name."""


def check_backend(name: str) -> None:
    """Raise NestKALAError for a name that is no backend's."""
    if name not in get_args(Backend):
        raise unknown_name("backend", name, get_args(Backend))


def missing_packages(name: str) -> list[str]:
    """The packages that a backend needs and that are not installed."""
    return [package for package in _PACKAGES.get(_extra(name), ()) if find_spec(package) is None]


def check_installed(name: str) -> None:
    """Raise NestKALAError for a backend whose packages are not installed, with the command that installs them."""
    if missing := missing_packages(name):
        raise NestKALAError(f'backend {name} needs {", ".join(missing)}: pip install "nestkala[{_extra(name)}]"')


def _extra(name: str) -> str:
    return name.partition("-")[0]
