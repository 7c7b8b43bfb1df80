"""torchvision data sets by name: only those whose files need no unpickling."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...utils.errors import NestKALAError, nearest, one_line
from ..cifar10 import load_cifar10, load_cifar100
from ..class_names import check_class_names, one_form
from ..dataset import ArrayDataset, FileDataset, ImageDataset
from .parts import parts_of

TORCHVISION = "torchvision:"
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class _Source:
    """How to construct a data set in torchvision.

    splits: {split: arguments}.
    class_names: class names, if torchvision has none or only meaningless ones.
    """

    splits: Mapping[str, Mapping[str, Any]]
    class_names: tuple[str, ...] = ()


def _by_split(*splits: str) -> _Source:
    return _Source({split: {"split": split} for split in splits})


_TRAIN_OR_NOT: Mapping[str, Mapping[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_WHOLE = _Source({"train": {}})
_SOURCES = {
    "Country211": _by_split("train", "valid", "test"),
    "DTD": _by_split("train", "val", "test"),
    "EuroSAT": _WHOLE,
    "FGVCAircraft": _by_split("train", "val", "test"),
    "FashionMNIST": _Source(_TRAIN_OR_NOT),
    "Flowers102": _by_split("train", "val", "test"),
    "Food101": _by_split("train", "test"),
    "Imagenette": _by_split("train", "val"),
    "KMNIST": _Source(_TRAIN_OR_NOT),
    "MNIST": _Source(_TRAIN_OR_NOT, _DIGITS),
    "RenderedSST2": _by_split("train", "val", "test"),
    "STL10": _by_split("train", "test"),
    "SUN397": _WHOLE,
    "SVHN": _Source(_by_split("train", "test").splits, _DIGITS),
    "StanfordCars": _by_split("train", "test"),
    "USPS": _Source(_TRAIN_OR_NOT, _DIGITS),
}
_OWN = {"CIFAR10": load_cifar10, "CIFAR100": load_cifar100}
"""Data sets that torchvision unpickles; here they are read from their authors' binary version."""
_PICKLED = {
    "LSUN": "keys of its database are unpickled",
    "ImageNet": "its class names are read by torch.load; give the folder of class folders with --data FOLDER",
    "EMNIST": "earlier versions of its files are read by torch.load",
    "QMNIST": "its files are read by torch.load",
    "PhotoTour": "its files are read by torch.load",
}


def load_torchvision(data: str, root: Path) -> ImageDataset:
    """Load `torchvision:NAME`, stored under `root` and downloaded by torchvision if it is missing.

    Names are paths relative to `root`, or SPLIT/NUMBER for images that are not files.

    Raises NestKALAError for unknown names, data sets whose files would be unpickled, and files that can be neither
    found nor downloaded.
    """
    name = data.removeprefix(TORCHVISION)
    if name in _OWN:
        return _OWN[name](root)
    known = sorted([*_SOURCES, *_OWN])
    if name in _PICKLED:
        raise NestKALAError(f"{data} is not supported: {_PICKLED[name]}, and NestKALA unpickles nothing")
    if name not in _SOURCES:
        raise NestKALAError(
            f"unknown torchvision data set {name!r}{nearest(name, known)} (known: {', '.join(known)}; for "
            "others, give the folder of images or a manifest)"
        )
    if (early := root / name / "processed" / "training.pt").exists():
        raise NestKALAError(f"{data}: {early}, from an early torchvision, would be unpickled: delete it")
    source = _SOURCES[name]
    found = _Images()
    for split, arguments in source.splits.items():
        opened = _opened(data, name, root, arguments)
        class_names = source.class_names or _class_names(opened)
        if found.class_names not in ((), class_names):
            raise NestKALAError(f"the splits of {data} have different classes: {split} has {', '.join(class_names)}")
        found.class_names = class_names
        found.take(split, opened)
    return found.as_dataset(data, root)


def _opened(data: str, name: str, root: Path, arguments: Mapping[str, Any]) -> Any:
    import torchvision.datasets  # the import takes seconds, and other data sets do not need it

    make = getattr(torchvision.datasets, name, None)
    if make is None:
        raise NestKALAError(f"{data} needs a newer torchvision than {torchvision.__version__}")
    # If it opens files with a loader, request only their paths.
    loader = {"loader": Path} if "loader" in make.__init__.__annotations__ else {}
    try:
        return make(root, **arguments, **loader)
    except RuntimeError:  # not downloaded yet
        pass
    try:
        root.mkdir(parents=True, exist_ok=True)
        return make(root, **arguments, **loader, download=True)
    except Exception as error:  # torchvision passes on exceptions from urllib, http and others
        raise NestKALAError(
            f"{data} is not in {str(root)!r} and cannot be downloaded ({one_line(error)}); get it some other way and "
            "put it there, as torchvision stores it, or give its location with --data-root"
        ) from error


def _class_names(opened: Any) -> tuple[str, ...]:
    """Class names; the first one for classes with several."""
    return tuple(one_form(name if isinstance(name, str) else name[0]) for name in opened.classes)


@dataclass
class _Images:
    """The images of all splits."""

    class_names: tuple[str, ...] = ()
    images: list[Path | Image.Image] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def take(self, split: str, opened: Sequence[tuple[Any, int]]) -> None:
        for row in range(len(opened)):
            image, label = opened[row]
            self.images.append(image)
            self.labels.append(int(label))
            self.splits.append(split)
            self.names.append(f"{split}/{row}")

    def as_dataset(self, data: str, root: Path) -> ImageDataset:
        check_class_names(self.class_names, data)
        targets = np.array(self.labels, dtype=np.int64)[:, None] == np.arange(len(self.class_names))
        parts = parts_of(enumerate(self.splits), len(self.splits), data)
        paths = [image.relative_to(root).as_posix() for image in self._paths()]
        if paths:
            return FileDataset(names=paths, targets=targets, class_names=self.class_names, parts=parts, root=root)
        pixels = np.stack([np.asarray(image) for image in self.images])
        return ArrayDataset(names=self.names, targets=targets, class_names=self.class_names, parts=parts, images=pixels)

    def _paths(self) -> Iterator[Path]:
        return (image for image in self.images if isinstance(image, Path))
