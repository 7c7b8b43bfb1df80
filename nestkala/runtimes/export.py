"""Export a PyTorch network to ONNX."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.model import HashModel
from ..utils.errors import NestKALAError, one_line


class FeatureEncoder(nn.Module):
    """Prepared images (B, 3, H, W) -> adapted features (B, feature_dim): trunk, adapter and tail in one module.

    Tokens are rounded to half precision between trunk and tail, as in training.
    """

    def __init__(self, model: HashModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(self.model.tower.unchecked_trunk(images).float())


def to_onnx(network: nn.Module, example: Tensor, outputs: Sequence[str]) -> Any:
    """The `onnx.ModelProto` of a network in evaluation mode: input "images" (B, ...) for any B, and named outputs.

    Raises:
        NestKALAError: torch cannot export the network.
    """
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
            warnings.simplefilter("ignore")  # the exporter and its packages warn about each other
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["images"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # can be of any type
        raise NestKALAError(f"torch cannot export this model: {one_line(error)}") from error
    assert program is not None
    proto = program.model_proto
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:  # the exporter fell back to a fixed batch size
        raise NestKALAError("torch cannot export this model with a variable number of images")
    return proto


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Within this context, these loggers report only errors."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
