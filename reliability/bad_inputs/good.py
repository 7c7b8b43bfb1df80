"""Small good inputs of every kind, for cases to copy and damage."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from nestkala.cli import main
from nestkala.settings.config import Config
from nestkala.training.run import train

from ..pictures import noise
from .damage import Damage

LENGTHS = (4, 20)
WIDTH = 8
OF_FEATURES = {"backbone": f"features:{WIDTH}", "adapter": "none", "anchors": "orthonormal"}
"""Settings of training on the features."""
SMALL = "--epochs 1 --shots 2 --lengths 4 --batch-size 2 --cache-gb 0 --workers 0"
"""Flags of a short training on images."""


class Good:
    """The contents of a folder.

    Attributes:
        images: 12 noise images in each of the class folders a and b.
        image: one of the images.
        run: a 4 and 20 bit model, briefly trained on them.
        index: index of the images, with that model.
        shards: the encoded images, 10 per shard.
        features: 24 rows of 8 numbers, in two classes.
        feature_run: a 4 and 20 bit model, trained on them for 3 epochs with a checkpoint after each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.images, self.image = folder, folder / "images", folder / "images" / "a" / "0.png"
        self.run, self.index, self.shards = folder / "run", folder / "good.index", folder / "shards"
        self.features, self.feature_run = folder / "features", folder / "feature-run"


Make = Callable[[Path, Good], Sequence[str | Path]]
"""Writes an input into an empty folder, and returns a command line that uses it."""


def placed(command: str, here: Path, good: Good, **more: Path) -> list[str | Path]:
    """A command line in which capitals, such as RUN, stand for good things, OUT and NEW for new ones."""
    places = {name.upper(): path for name, path in vars(good).items()}
    places |= {"OUT": here / "out", "NEW": here / "out.index", **more}

    def path(word: str) -> str | Path:
        first, _, rest = word.partition("/")
        return places[first] / rest if first in places else word

    return [path(word) for word in command.split()]


def command(line: str) -> Make:
    """A command line as in `placed`."""
    return lambda here, good: placed(line, here, good)


def on_copy(part: str, damage: Damage, command: str) -> Make:
    """A command line as in `placed`, where COPY is a copy of a part of `Good` that `damage` has changed."""

    def make(here: Path, good: Good) -> list[str | Path]:
        copy = copied(getattr(good, part), here)
        damage(copy)
        return placed(command, here, good, COPY=copy)

    return make


def on_path(name: str, write: Damage, command: str) -> Make:
    """A command line as in `placed`, where PATH is a file or folder of this name that `write` has made."""

    def make(here: Path, good: Good) -> list[str | Path]:
        write(here / name)
        return placed(command, here, good, PATH=here / name)

    return make


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
