"""The libraries that run an exported network on the CPU."""

import sys
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ..utils.errors import NestKALAError, one_line

Compute = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) -> features (B, feature_dim), both float32 on the CPU. Thread-safe."""


def load(backend: str, onnx: bytes) -> Compute:
    """Load an ONNX network with one input and one output into a backend, with as many threads as torch uses.

    Raises:
        NestKALAError: the library cannot run the network, or cannot be loaded.
    """
    try:
        match backend:
            case "onnx":
                return _onnxruntime(onnx)
            case "openvino-bf16":
                return _openvino(onnx, "bf16")
            case _:
                return _openvino(onnx, "f32")
    except NestKALAError:
        raise
    except Exception as error:  # can be of any type
        raise NestKALAError(f"backend {backend} cannot run this model: {one_line(error)}") from error


def _onnxruntime(onnx: bytes) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to the decoders
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def compute(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return compute


def _openvino(onnx: bytes, precision: str) -> Compute:
    openvino = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,  # otherwise some CPUs choose bf16 themselves
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
    }
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise NestKALAError("this CPU does not support bfloat16: use backend openvino")
    compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
    lock = Lock()  # a compiled model handles one request at a time

    def compute(images: Tensor) -> Tensor:
        with lock:
            return torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())

    return compute


def import_openvino() -> Any:
    """Import openvino without its telemetry, which would report every import to its vendor."""
    name = "openvino_telemetry"
    before: Any = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment] # so that it is not found
    try:
        import openvino
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
    return openvino
