"""Data sets from Hugging Face `datasets`, by name or folder; needs the extra `hf`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...utils.errors import NestKALAError, one_line
from ..class_names import check_class_names, one_form
from ..dataset import ImageDataset
from .columns import named_columns
from .manifest import in_order
from .parts import parts_of

HUB = "hf:"


@dataclass(frozen=True, eq=False, kw_only=True)
class HubDataset(ImageDataset):
    """Images in the splits of a data set, named SPLIT/NUMBER.

    splits: {split: rows of encoded images, with a path or bytes in `column`}.
    places: split and row of each image.
    """

    splits: Mapping[str, Any]
    column: str
    places: Sequence[tuple[str, int]]

    def read(self, index: int) -> bytes:
        split, row = self.places[index]
        image = self.splits[split][row][self.column]
        if image is None:
            raise NestKALAError(f"cannot read image {self.names[index]!r}: column {self.column!r} is empty")
        if image["bytes"] is not None:
            return bytes(image["bytes"])
        try:
            return Path(image["path"]).read_bytes()
        except OSError as error:
            raise NestKALAError(f"cannot read image {self.names[index]!r}: {error.strerror}") from error

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        return replace(super().take(indices), places=[self.places[index] for index in indices])


def load_hub(data: str) -> HubDataset:
    """Load `hf:NAME` or `hf:FOLDER`, optionally followed by columns, `:image=COLUMN,label=COLUMN`.

    NAME is a data set on the Hugging Face Hub; FOLDER is one that `datasets.load_dataset` reads (class folders,
    ImageFolder with metadata, Parquet) or that `save_to_disk` wrote. No code from a data set is run, so it needs a
    version of `datasets` that runs no scripts.

    Raises NestKALAError if the extra `hf` is missing, the data cannot be loaded, columns are not recognized, or the
    label column holds no labels.
    """
    name, named = named_columns(data.removeprefix(HUB))
    splits = _splits(name, data)
    features = next(iter(splits.values())).features
    image = _column(features, named, "image", data)
    label = _column(features, named, "label", data)
    kind = getattr(features[label], "feature", features[label])
    rows = {split: list(of[label]) for split, of in splits.items()}
    given = getattr(kind, "names", None)
    labels = [_labels(value, given, data) for values in rows.values() for value in values]
    class_names = tuple(map(one_form, given)) if given else in_order({each for of in labels for each in of})
    check_class_names(class_names, data)
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise NestKALAError(f"{data} has the classes {', '.join(class_names)}; need at least two different ones")
    column = {each: number for number, each in enumerate(class_names)}
    targets = np.zeros((len(labels), len(class_names)), bool)
    for row, of in enumerate(labels):
        targets[row, [column[each] for each in of]] = True
    places = [(split, row) for split, values in rows.items() for row in range(len(values))]
    from datasets import Image

    encoded = {
        split: of.select_columns([image]).cast_column(image, Image(decode=False)) for split, of in splits.items()
    }
    return HubDataset(
        names=[f"{split}/{row}" for split, row in places],
        targets=targets,
        class_names=class_names,
        parts=parts_of(((index, split) for index, (split, _) in enumerate(places)), len(places), data),
        splits=encoded,
        column=image,
        places=places,
    )


def _splits(name: str, data: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise NestKALAError(f'{data} needs the package datasets: pip install "nestkala[hf]"') from None
    if int(datasets.__version__.partition(".")[0]) < 4:
        raise NestKALAError(
            f"{data}: datasets {datasets.__version__} may run a data set's scripts; version 4 or later is required"
        )
    folder = Path(name).expanduser()
    saved = any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))
    datasets.disable_progress_bars()
    try:
        load = datasets.load_from_disk if saved else datasets.load_dataset
        found = load(str(folder) if folder.is_dir() else name)
    except Exception as error:  # from the Hub, Arrow and many others
        raise NestKALAError(f"datasets cannot load {data}: {one_line(error)}") from error
    splits = dict(found) if isinstance(found, dict) else {str(found.split or "train"): found}
    splits = {str(split): of for split, of in splits.items() if len(of)}
    if not splits:
        raise NestKALAError(f"{data} holds no images")
    return splits


def _column(features: Mapping[str, Any], named: Mapping[str, list[str]], role: str, data: str) -> str:
    from datasets import ClassLabel, Image

    def fits(feature: Any) -> bool:
        if role == "image":
            return isinstance(feature, Image)
        return isinstance(getattr(feature, "feature", feature), ClassLabel)

    known = ", ".join(f"{name!r}" for name in features)
    advice = f"it has {known}; name them with {data.split(':image=')[0].split(':label=')[0]}:image=COLUMN,label=COLUMN"
    if wrong := next(iter(named.keys() - {"image", "label"}), None):
        raise NestKALAError(f"{data}: {wrong} does not name a column: {advice}")
    if len(chosen := named.get(role, [])) > 1 or (chosen and chosen[0] not in features):
        raise NestKALAError(f"{data} has no single column {' and '.join(chosen)}: {advice}")
    found = chosen or [name for name, feature in features.items() if fits(feature)]
    if not found and role == "label":
        found = [name for name in features if name.lower() in ("label", "labels", "class", "category", "tags")]
    if len(found) != 1:
        raise NestKALAError(f"{data} has {len(found) or 'no'} columns that could be the {role}: {advice}")
    if role == "image" and not fits(features[found[0]]):
        raise NestKALAError(f"{data} has no images in column {found[0]!r}: {advice}")
    return found[0]


def _labels(value: Any, names: Sequence[str] | None, data: str) -> list[str]:
    """The classes of one image; may be empty, for -1 or no value."""
    values = value if isinstance(value, list) else [value]
    if names is not None:
        return [one_form(names[each]) for each in values if each is not None and each >= 0]
    if not all(each is None or isinstance(each, str | int) for each in values):
        raise NestKALAError(f"{data} has {value!r:.40} instead of a label")
    return [one_form(str(each)) for each in values if each not in (None, "")]
