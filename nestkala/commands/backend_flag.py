"""The flag --backend, which several commands have."""

from typing import Annotated

from tyro.conf import arg

from ..runtimes.names import Backend

BackendFlag = Annotated[
    Backend,
    arg(
        help="what computes images' features. ONNX Runtime (onnx) and OpenVINO (openvino) are faster than torch on "
        "processors, and export the model once; openvino-bf16 rounds to bfloat16, for about twice the speed where the "
        "processor has it; auto is the fastest that is installed and gives the same codes"
    ),
]
