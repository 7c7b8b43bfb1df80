"""A network of PyTorch as ONNX."""

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

    Tokens are rounded to half precision between trunk and tail, as they are in training.
    """

    def __init__(self, model: HashModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(self.model.tower.unchecked_trunk(images).float())


def to_onnx(network: nn.Module, example: Tensor, outputs: Sequence[str]) -> Any:
    """The `onnx.ModelProto` of a network in evaluation mode: input "images" (B, ...) of any B, outputs of these names.

    Raises:
        NestKALAError: torch's exporter cannot express the network.
    """
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"):
            warnings.simplefilter("ignore")  # of what the exporter and its packages find in each other
            program = torch.onnx.export(
                network,
                (example,),
                input_names=["images"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # of any type
        raise NestKALAError(f"torch cannot export this model: {one_line(error)}") from error
    assert program is not None
    proto = program.model_proto
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:  # the exporter falls back to a fixed number
        raise NestKALAError("torch cannot export this model for any number of images")
    return proto


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Within this context these loggers tell of errors alone."""
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
