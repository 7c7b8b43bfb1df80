"""Where a run gets the tokens of its images."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from ...backbones import Backbone
from ...data import FeatureDataset, ImageDataset
from ...data.splits import Split
from ...modeling.saved_model import ModelSpec
from ...runtimes.trunk import trunk_on
from ...settings.groups import MachineSettings
from ...tokens.cache import TokenCache, default_folder
from ...tokens.source import TokenSource
from ...utils.errors import NestKALAError
from ...utils.machine import decoding_workers


def token_source(settings: MachineSettings, spec: ModelSpec, backbone: Backbone, dataset: ImageDataset) -> TokenSource:
    """The source of a data set's tokens for this model, with the cache that the settings ask for."""
    backend, trunk = trunk_on(settings.backend, backbone, settings.precision)
    cache = None  # features are as fast to read as cached tokens
    if settings.cache_gb > 0 and not isinstance(dataset, FeatureDataset):
        on = f"{backbone.tower.device.type} by {settings.encode_batch_size}"
        on += f" with {backend}" if backend != "torch" else ""
        kind = f"version 2: {spec.fingerprint} {settings.precision} last {spec.num_adapted} blocks on {on}"
        cache = TokenCache(settings.cache or default_folder(), kind, settings.cache_gb * 1e9)
    workers = decoding_workers(settings.workers)
    return TokenSource(backbone, settings.precision, settings.encode_batch_size, workers, cache, trunk)


def unlabeled_batches(
    source: TokenSource, dataset: ImageDataset, split: Split, most: int, broken: list[int], show: bool
) -> Iterator[Tensor]:
    """Tokens of the unlabeled images; those of an archive that cannot be read are appended to `broken`."""
    chosen = np.setdiff1d(split.unlabeled[:most], split.train).tolist()
    label = "images without labels" if show else None
    yield from source.batches(dataset, chosen, label, broken=None if split.archive is None else broken)
    if chosen and len(broken) == len(chosen):
        first = dataset.names[broken[0]]
        raise NestKALAError(f"none of the {len(broken)} images of the archive can be read; the first is {first!r}")
