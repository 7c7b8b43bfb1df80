"""n-shot splits into training, query and gallery images, drawn or given."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from ..utils.errors import NestKALAError
from ..utils.files import write_text
from ..utils.text_files import read_json
from ..utils.versions import check_version
from .dataset import ARCHIVE, ImageDataset

Indices = npt.NDArray[np.int64]

_FORMAT = "nestkala-split"
_VERSION = 1
_PARTS = ("train", "query", "gallery")


@dataclass(frozen=True, eq=False)
class Split:
    """Indices, int64, of a data set's images. No query is in `train` or `gallery`; those two may overlap.

    `archive` holds unlabeled images to learn from, if the data has any.
    """

    train: Indices
    query: Indices
    gallery: Indices
    archive: Indices | None = None

    @property
    def unlabeled(self) -> Indices:
        """Images whose labels are not used: the archive, or else the gallery that will be searched."""
        return self.gallery if self.archive is None else self.archive

    def without(self, broken: Sequence[int]) -> Self:
        """The split without these images of the archive."""
        if self.archive is None or not broken:
            return self
        archive, gallery = (part[~np.isin(part, broken)] for part in (self.archive, self.gallery))
        return replace(self, archive=archive, gallery=gallery)


def draw_split(
    dataset: ImageDataset,
    *,
    shots: int | Literal["all"],
    seed: int,
    queries_per_class: int | None = None,
    queries: int | None = None,
    train_pool: int | None = None,
    protocol_seed: int = 0,
) -> Split:
    """Draw an n-shot split, which depends only on the arguments.

    Queries and gallery depend only on `protocol_seed`, never on `shots` and `seed`. The queries are the data set's
    `test` part, if it has one; otherwise `queries_per_class` of every class (single-label sets), or `queries` of all
    labeled images (default: a tenth of them, or none if there is an archive). The gallery is the `database` part, or
    else all other images, shuffled.

    The training images come from the `train` part, if there is one; otherwise from `train_pool` images of the gallery,
    or from all of it. They are taken in an order drawn with `seed`, each only if none of its labels has `shots` images
    yet: exactly `shots` per class if every image has one label, otherwise at most. Unlabeled images are never taken; at
    0 shots none are taken, and at "all" shots all labeled ones are.

    If the data set has an archive, all of this applies to the other images, and a class may have fewer than `shots`.
    The archive is shuffled; if there are no queries, it is also the gallery.

    Raises NestKALAError if settings are out of range, missing, or in conflict with the data set's parts; if queries are
    also in the `train` or `database` part; and if a class of a single-label set has too few images.
    """
    for setting, value in {"queries_per_class": queries_per_class, "train_pool": train_pool}.items():
        if value is not None and value < 1:
            raise NestKALAError(f"{setting} must be at least 1, not {value}")
    numbers = {"shots": 0 if shots == "all" else shots, "queries": queries or 0}
    for setting, value in (numbers | {"seed": seed, "protocol_seed": protocol_seed}).items():
        if value < 0:
            raise NestKALAError(f"{setting} must be 0 or more, not {value}")

    # A stream per purpose, so that no draw affects another, whether or not the seeds are equal.
    query_rng, gallery_rng, pool_rng, shots_rng = (
        np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purpose,)))
        for purpose, entropy in enumerate([protocol_seed, protocol_seed, protocol_seed, seed])
    )

    query = _queries(dataset, queries_per_class, queries, query_rng)
    gallery = others = gallery_rng.permutation(_without_queries(dataset, "database", query))
    archive = dataset.parts.get(ARCHIVE)
    if archive is not None:
        archive = gallery_rng.permutation(archive)
        gallery = gallery if len(query) else archive
    if not len(gallery):
        raise NestKALAError(f"the gallery is empty: all {len(query)} images are queries")

    if "train" in dataset.parts:
        if train_pool is not None:
            raise NestKALAError("train_pool cannot be set: the data set has its own train part")
        pool = _without_queries(dataset, "train", query)
    elif train_pool is None:
        pool = np.sort(others)
    elif train_pool <= len(others):
        pool = pool_rng.choice(np.sort(others), train_pool, replace=False)
    else:
        raise NestKALAError(f"train_pool is {train_pool}, but the gallery has only {len(others)} images")
    return Split(_draw_shots(dataset, pool, shots, shots_rng), query, gallery, archive)


def save_split(path: Path, split: Split, dataset: ImageDataset) -> None:
    """Write a split as JSON, by image names; an existing file is replaced atomically.

    Raises NestKALAError if it cannot be written.
    """
    parts = [*_PARTS, *([] if split.archive is None else [ARCHIVE])]
    names = {part: [dataset.names[index] for index in getattr(split, part)] for part in parts}
    text = json.dumps({"format": _FORMAT, "version": _VERSION, **names}, indent=0)
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise NestKALAError(f"cannot write split {str(path)!r}: {error.strerror}") from error


def load_split(path: Path, dataset: ImageDataset) -> Split:
    """Read a split for this data set, written by `save_split` or by other means.

    If the file names no archive, the data set's archive is used, if any.

    Raises NestKALAError if the file is unreadable, not JSON or not a split, has names that are not in the data set, an
    empty gallery or archive, or repeated names, or if queries are also in another part.
    """
    where = f"split {str(path)!r}"
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise NestKALAError(f'{where} lacks "format": "{_FORMAT}"')
    check_version(where, content.get("version"), _VERSION)
    parts: dict[str, list[str]] = {}
    for part in [*_PARTS, *([ARCHIVE] if ARCHIVE in content else [])]:
        names = content.get(part)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise NestKALAError(f"{where} has no list of image names under {part!r}")
        if not names and part in ("gallery", ARCHIVE):
            raise NestKALAError(f"{where} has an empty {part} part")
        for name, count in Counter(names).items():
            if count > 1:
                raise NestKALAError(f"{where} has image {name!r} more than once in its {part} part")
        parts[part] = names
    index = {name: number for number, name in enumerate(dataset.names)}
    if unknown := list(dict.fromkeys(n for names in parts.values() for n in names if n not in index)):
        raise NestKALAError(f"{where} names {len(unknown)} images that are not in the data, such as {unknown[0]!r}")
    split = Split(**{part: np.array([index[name] for name in names], dtype=np.int64) for part, names in parts.items()})
    _refuse_overlap(dataset, split.query, split.gallery, f"gallery of {where}")
    _refuse_overlap(dataset, split.query, split.train, f"train part of {where}")
    if split.archive is None:  # for example, from another run, or a published one
        return replace(split, archive=dataset.parts.get(ARCHIVE))
    _refuse_overlap(dataset, split.query, split.archive, f"archive of {where}")
    return split


def _queries(dataset: ImageDataset, per_class: int | None, total: int | None, rng: np.random.Generator) -> Indices:
    if "test" in dataset.parts:
        if per_class is not None or total is not None:
            raise NestKALAError("the number of queries cannot be set: the data set has its own test part")
        return dataset.parts["test"]
    if per_class is not None and total is not None:
        raise NestKALAError("set either queries_per_class or queries, not both")
    if per_class is not None:
        if not _is_single_label(dataset):
            raise NestKALAError("queries_per_class needs exactly one label per image; set queries instead")
        _refuse_short_classes(dataset, _outside_archive(dataset), per_class, "data set", "queries_per_class")
        return np.concatenate(
            [rng.choice(np.flatnonzero(members), per_class, replace=False) for members in dataset.targets.T]
        )
    # A query without a label has nothing relevant to find.
    labeled = np.flatnonzero(dataset.targets.any(axis=1))
    if total is None:
        total = max(1, len(labeled) // 10) if ARCHIVE not in dataset.parts else 0
    if total > len(labeled):
        raise NestKALAError(f"queries is {total}, but only {len(labeled)} images have a label")
    return rng.choice(labeled, total, replace=False)


def _without_queries(dataset: ImageDataset, part: str, query: Indices) -> Indices:
    """A part without the drawn queries, sorted; all other images if the data set does not define the part."""
    if part not in dataset.parts:
        return np.setdiff1d(_outside_archive(dataset), query)
    if "test" in dataset.parts:
        _refuse_overlap(dataset, query, dataset.parts[part], f"{part} part")
    return np.setdiff1d(dataset.parts[part], query)


def _draw_shots(dataset: ImageDataset, pool: Indices, shots: int | Literal["all"], rng: np.random.Generator) -> Indices:
    if shots == "all":
        return rng.permutation(pool[dataset.targets[pool].any(axis=1)])
    if _is_single_label(dataset) and ARCHIVE not in dataset.parts:
        _refuse_short_classes(dataset, pool, shots, "training pool", "shots")
    taken = []
    counts = np.zeros(len(dataset.class_names), dtype=np.int64)
    for index in rng.permutation(pool):
        labels = np.flatnonzero(dataset.targets[index])
        if len(labels) and (counts[labels] < shots).all():
            taken.append(index)
            counts[labels] += 1
    if shots and not taken:
        raise NestKALAError(f"none of the {len(pool)} images in the training pool has a label")
    return np.array(taken, dtype=np.int64)


def _is_single_label(dataset: ImageDataset) -> bool:
    return bool((dataset.targets[_outside_archive(dataset)].sum(axis=1) == 1).all())


def _outside_archive(dataset: ImageDataset) -> Indices:
    return np.setdiff1d(np.arange(len(dataset)), dataset.parts.get(ARCHIVE, []))


def _refuse_short_classes(dataset: ImageDataset, members: Indices, needed: int, place: str, setting: str) -> None:
    counts = dataset.targets[members].sum(axis=0)
    for name, count in zip(dataset.class_names, counts, strict=True):
        if count < needed:
            raise NestKALAError(f"class {name!r} has {count} images in the {place}, but {setting} is {needed}")


def _refuse_overlap(dataset: ImageDataset, query: Indices, other: Indices, place: str) -> None:
    common = np.intersect1d(query, other)
    if len(common):
        raise NestKALAError(f"{len(common)} query images are also in the {place}, such as {dataset.names[common[0]]!r}")
