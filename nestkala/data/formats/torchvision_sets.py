"""torchvision data sets by name: only those whose files need no unpickling."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...utils.errors import NestKALAError, nearest, one_line
from ..cifar10 import load_cifar10, load_cifar100
from ..class_names import check_class_names, one_form
from ..dataset import ArrayDataset, FileDataset, ImageDataset
from ..digits import DIGITS
from .parts import parts_of

TORCHVISION = "torchvision:"


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
    "MNIST": _Source(_TRAIN_OR_NOT, DIGITS),
    "RenderedSST2": _by_split("train", "val", "test"),
    "STL10": _by_split("train", "test"),
    "SUN397": _WHOLE,
    "SVHN": _Source(_by_split("train", "test").splits, DIGITS),
    "StanfordCars": _by_split("train", "test"),
    "USPS": _Source(_TRAIN_OR_NOT, DIGITS),
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
    class_names: tuple[str, ...] = ()
    items: dict[str, tuple[Path | Image.Image, int]] = {}
    for split, arguments in source.splits.items():
        opened = _opened(data, name, root, arguments)
        own = source.class_names or tuple(
            one_form(each if isinstance(each, str) else each[0]) for each in opened.classes
        )
        if class_names not in ((), own):
            raise NestKALAError(f"the splits of {data} have different classes: {split} has {', '.join(own)}")
        class_names = own
        items |= {f"{split}/{row}": opened[row] for row in range(len(opened))}
    check_class_names(class_names, data)
    targets = np.array([int(label) for _, label in items.values()])[:, None] == np.arange(len(class_names))
    parts = parts_of(((row, each.partition("/")[0]) for row, each in enumerate(items)), len(items), data)
    paths = [image.relative_to(root).as_posix() for image, _ in items.values() if isinstance(image, Path)]
    if paths:
        return FileDataset(names=paths, targets=targets, class_names=class_names, parts=parts, root=root)
    pixels = np.stack([np.asarray(image) for image, _ in items.values()])
    return ArrayDataset(names=list(items), targets=targets, class_names=class_names, parts=parts, images=pixels)


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
