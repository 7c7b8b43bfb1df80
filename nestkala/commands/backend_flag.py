"""The --backend flag, shared by several commands."""

from typing import Annotated

from tyro.conf import arg

from ..runtimes.names import Backend

BackendFlag = Annotated[
    Backend,
    arg(
        help="runtime that computes image features. ONNX Runtime (onnx) and OpenVINO (openvino) are faster than torch "
        "on CPUs and export the model once; openvino-bf16 rounds to bfloat16, about twice as fast on CPUs that support "
        "it; auto picks the fastest installed one that gives the same codes"
    ),
]
