"""Small good inputs of every kind, for cases to copy and damage."""

import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nestkala.cli import main
from nestkala.settings.config import Config
from nestkala.training.run import train

LENGTHS = (4, 20)
WIDTH = 8
OF_FEATURES = {"backbone": f"features:{WIDTH}", "adapter": "none", "anchors": "orthonormal"}
"""Settings of training on the features."""
SMALL = ["--epochs", "1", "--shots", "2", "--lengths", "4", "--batch-size", "2", "--cache-gb", "0", "--workers", "0"]
"""Flags of a short training on images."""


@dataclass(frozen=True)
class Good:
    """The contents of `folder`.

    images: 12 noise images in each of the class folders a and b.
    run: a 4 and 20 bit model, briefly trained on them.
    index: index of the images, with that model.
    shards: the encoded images, 10 per shard.
    features: 24 rows of 8 numbers, in two classes.
    feature_run: a 4 and 20 bit model, trained on them for 3 epochs with a checkpoint after each.
    """

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def image(self) -> Path:
        """One of the images."""
        return self.images / "a" / "0.png"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def index(self) -> Path:
        return self.folder / "good.index"

    @property
    def shards(self) -> Path:
        return self.folder / "shards"

    @property
    def features(self) -> Path:
        return self.folder / "features"

    @property
    def feature_run(self) -> Path:
        return self.folder / "feature-run"


def make_good(folder: Path) -> Good:
    """Create everything, in a few seconds."""
    good = Good(folder)
    write_images(good.images)
    write_features(good.features)
    few: dict[str, Any] = {"queries": 4, "shots": 4, "lengths": LENGTHS, "batch_size": 4, "workers": 0, "cache_gb": 0}
    of_features = Config(
        data=str(good.features), output=good.feature_run, epochs=3, checkpoint_every=1, **few, **OF_FEATURES
    )
    quietly(
        lambda: train(Config(data=str(good.images), output=good.run, epochs=1, **few)),
        lambda: train(of_features),
        lambda: main(["index", str(good.images), str(good.index), "--model", str(good.run)]),
        lambda: main(["encode", str(good.images), str(good.shards), "--model", str(good.run), "--shard-size", "10"]),
    )
    return good


def quietly(*actions: Callable[[], object]) -> None:
    """Call these and discard their output."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        for action in actions:
            action()


def noise(seed: int, size: int = 8) -> Image.Image:
    """An RGB image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def write_images(folder: Path, classes: tuple[str, ...] = ("a", "b"), each: int = 12) -> None:
    """Class folders of noise."""
    for column, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            noise(each * column + number).save(folder / name / f"{number}.png")


def write_features(folder: Path) -> None:
    """features.npy (24, 8) and labels.npy (24,), of two classes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    np.save(folder / "features.npy", rng.normal(size=(24, WIDTH)).astype(np.float32))
    np.save(folder / "labels.npy", np.arange(24) % 2)


def copied(source: Path, folder: Path) -> Path:
    """A copy of a file or folder, with the same name, in this folder."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)
    return target
