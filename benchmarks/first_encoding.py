"""The first encoding of a folder of images, from files to packed codes."""

import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nestkala.backbones import Backbone, load_backbone
from nestkala.codes import pack
from nestkala.data import ImageDataset, load_dataset
from nestkala.modeling.image_codes import packed_codes
from nestkala.modeling.model import HashModel
from nestkala.tokens.cache import TokenCache
from nestkala.tokens.source import TokenSource
from nestkala.utils.machine import decoding_workers

from .comparison import Row, Work, in_turn

BACKBONE, BITS, BATCH, CACHE_BYTES = "tiny", 64, 128, 4e9


class Decoded(Dataset[Tensor]):
    """The images, decoded and preprocessed."""

    def __init__(self, images: ImageDataset, backbone: Backbone) -> None:
        self.images, self.backbone = images, backbone

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.backbone.prepare(self.images.read(index), self.images.names[index])


def run(cifar10: Path) -> list[Row]:
    """Compared to a plain DataLoader and the model, same batches, precision and workers; ours also fills the cache."""
    dataset = load_dataset(str(cifar10.absolute()), Path())
    backbone = load_backbone(BACKBONE, num_adapted=1)
    torch.manual_seed(0)
    model = HashModel(backbone.tower, torch.randn(10, backbone.tower.feature_dim), lengths=(BITS,)).eval()
    workers = decoding_workers(None)
    found: dict[str, np.ndarray] = {}
    busy: list[float] = []

    @torch.no_grad()
    def plain() -> None:
        loader = DataLoader(Decoded(dataset, backbone), BATCH, num_workers=workers)
        found["plain"] = np.concatenate([pack(model(model.tower.trunk(images))[0]) for images in loader])

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = TokenSource(backbone, "fp32", BATCH, workers, TokenCache(Path(folder), BACKBONE, CACHE_BYTES))
            found["ours"] = packed_codes(model, source, dataset, range(len(dataset)))

    timing = in_turn(plain, lambda: busy.append(_busy_share(ours)), repeats=2, warm_up=False)
    if (differing := np.bitwise_count(found["plain"] ^ found["ours"]).sum() / (len(dataset) * BITS)) > 1e-4:
        raise AssertionError(f"the codes differ in {differing:.2%} of the bits")
    ratio, share = statistics.median(timing.ratios), statistics.median(busy)
    rate = len(dataset) / statistics.median(timing.ours)
    return [
        Row(
            f"first encoding of {len(dataset):,} images, {BACKBONE}, batches of {BATCH}, keeping the tokens",
            "DataLoader and model, same batches, precision and workers, keeping nothing",
            f"{ratio:.2f} times as fast ({min(timing.ratios):.2f} to {max(timing.ratios):.2f}), {rate:.0f} images/s; "
            f"processor {share:.0%} busy",
            "1 time, 90 % busy",
            ratio >= 1 and share >= 0.9,
            {"plain_s": timing.plain, "ours_s": timing.ours, "busy": busy},
        )
    ]


def _busy_share(work: Work) -> float:
    """Share of the cores' time used by this process and by its finished children."""
    started, before = time.perf_counter(), _computing()
    work()
    return (_computing() - before) / (time.perf_counter() - started) / len(os.sched_getaffinity(0))


def _computing() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
