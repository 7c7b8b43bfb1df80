"""Codes and features of many images, shared among the processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from ...modeling.image_codes import packed_codes
from ...modeling.model import HashModel
from ...tokens.source import Images, TokenSource


@dataclass(frozen=True)
class TrainedModel:
    """The model after training.

    Attributes:
        accelerator: the run's processes, which must all make the same calls.
        model: the model that encodes.
        source: source of tokens.
    """

    accelerator: Accelerator
    model: HashModel
    source: TokenSource

    def codes(self, images: Images, indices: np.ndarray, name: str) -> NDArray[np.uint8]:
        """Packed codes of the images at `indices`, in that order; the progress bar shows `name`."""
        label = f"encoding {name}" if self.accelerator.is_main_process else None
        return self._shared(indices, lambda share: packed_codes(self.model, self.source, images, share, label))

    def frozen_features(self, images: Images, indices: np.ndarray) -> NDArray[np.floating]:
        """The backbone's output without its adapter, (n, d)."""
        return self._shared(indices, lambda share: self._frozen(images, share))

    @torch.no_grad()
    def _frozen(self, images: Images, share: Sequence[int]) -> NDArray[np.floating]:
        model, tower = self.model, self.model.tower
        batches = self.source.batches(images, share)
        features = [tower.tail(tokens.to(self.source.device, model.dtype)).cpu() for tokens in batches]
        return torch.cat([torch.empty(0, tower.feature_dim, dtype=model.dtype), *features]).numpy()

    def _shared(self, indices: np.ndarray, compute: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        accelerator = self.accelerator
        share: Sequence[int] = np.array_split(indices, accelerator.num_processes)[accelerator.process_index].tolist()
        shares: list[Any] = gather_object([compute(share)])
        return np.concatenate(shares)
