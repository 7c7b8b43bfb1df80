import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestkala.data import ImageDataset, load_dataset
from nestkala.data.splits import Split, draw_split, load_split, save_split
from nestkala.utils.errors import NestKALAError


@dataclass(frozen=True, eq=False, kw_only=True)
class Unread(ImageDataset):
    """Names and labels alone: drawing a split must not read an image."""

    def read(self, index: int) -> bytes:
        raise AssertionError(f"image {index} was read")


def dataset_of(targets: np.ndarray, parts: Mapping[str, list[int]] | None = None) -> Unread:
    return Unread(
        names=[f"folder {number % 7}/image {number}\n'\".png" for number in range(len(targets))],
        targets=targets.astype(bool),
        class_names=tuple(f"class {number}" for number in range(targets.shape[1])),
        parts={part: np.array(members, dtype=np.int64) for part, members in (parts or {}).items()},
    )


def single_label(per_class: int = 30, num_classes: int = 4) -> Unread:
    return dataset_of(np.eye(num_classes)[np.arange(per_class * num_classes) % num_classes])


def multi_label(count: int = 300, num_classes: int = 6) -> Unread:
    return dataset_of(np.random.default_rng(1).random((count, num_classes)) < 0.25)


def same(first: Split, second: Split, part: str) -> bool:
    return getattr(first, part).tolist() == getattr(second, part).tolist()


def assert_disjoint(split: Split) -> None:
    for members in (split.train, split.query, split.gallery):
        assert members.dtype == np.int64
        assert len(np.unique(members)) == len(members) > 0
    assert not set(split.query.tolist()) & {*split.gallery.tolist(), *split.train.tolist()}


# Drawing


def test_single_label_counts() -> None:
    dataset = single_label()
    split = draw_split(dataset, shots=3, seed=0, queries_per_class=5)
    assert_disjoint(split)
    assert dataset.targets[split.query].sum(axis=0).tolist() == [5] * 4
    assert dataset.targets[split.train].sum(axis=0).tolist() == [3] * 4
    assert sorted([*split.query, *split.gallery]) == list(range(len(dataset)))
    assert set(split.train) <= set(split.gallery)
    assert split.gallery.tolist() != sorted(split.gallery)


def test_queries_at_random_in_total() -> None:
    dataset = multi_label()
    split = draw_split(dataset, shots=3, seed=0, queries=40)
    assert_disjoint(split)
    assert len(split.query) == 40
    assert len(split.gallery) == 260
    assert dataset.targets[split.query].any(axis=1).all()


def test_same_arguments_give_the_same_split() -> None:
    for dataset, queries in ((single_label(), {"queries_per_class": 5}), (multi_label(), {"queries": 40})):
        first = draw_split(dataset, shots=2, seed=3, protocol_seed=4, **queries)
        np.random.random()
        second = draw_split(dataset, shots=2, seed=3, protocol_seed=4, **queries)
        assert all(same(first, second, part) for part in ("train", "query", "gallery"))


def test_shots_and_seed_change_the_training_images_alone() -> None:
    dataset = multi_label()
    reference = draw_split(dataset, shots=2, seed=0, queries=40, train_pool=100)
    for shots, seed in ((2, 1), (5, 0), (5, 7)):
        split = draw_split(dataset, shots=shots, seed=seed, queries=40, train_pool=100)
        assert same(split, reference, "query")
        assert same(split, reference, "gallery")
        assert not same(split, reference, "train")


def test_protocol_seed_changes_queries_and_gallery() -> None:
    reference = draw_split(single_label(), shots=2, seed=0, queries_per_class=5)
    split = draw_split(single_label(), shots=2, seed=0, queries_per_class=5, protocol_seed=1)
    assert set(split.query) != set(reference.query)
    assert not same(split, reference, "gallery")


def test_a_training_pool_does_not_change_queries_and_gallery() -> None:
    whole = draw_split(multi_label(), shots=2, seed=0, queries=40)
    pooled = draw_split(multi_label(), shots=2, seed=0, queries=40, train_pool=100)
    assert same(whole, pooled, "query")
    assert same(whole, pooled, "gallery")


def test_training_pool_is_fixed_by_the_protocol() -> None:
    dataset = dataset_of(np.ones((500, 1)))
    drawn = [draw_split(dataset, shots=1, seed=seed, queries=1, train_pool=10) for seed in range(200)]
    pool = {split.train[0] for split in drawn}
    assert len(pool) == 10
    assert pool <= set(drawn[0].gallery)


@pytest.mark.parametrize("dataset", [single_label(), multi_label()], ids=["single label", "multi label"])
def test_no_shots_train_on_nothing_and_change_nothing_else(dataset: ImageDataset, tmp_path: Path) -> None:
    none, one = (draw_split(dataset, shots=shots, seed=0, queries=40) for shots in (0, 1))
    assert none.train.tolist() == []
    assert np.array_equal(none.query, one.query)
    assert np.array_equal(none.gallery, one.gallery)
    save_split(tmp_path / "split.json", none, dataset)
    assert load_split(tmp_path / "split.json", dataset).train.dtype == np.int64


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_multi_label_draw_is_the_greedy_one(shots: int) -> None:
    dataset = multi_label()
    pool = list(range(100, 300))
    dataset = dataset_of(dataset.targets, {"test": list(range(100)), "train": pool})
    train = draw_split(dataset, shots=shots, seed=5).train.tolist()

    def labels(index: int) -> list[int]:
        return [label for label in range(6) if dataset.targets[index][label]]

    # Taking the images in the order in which they were drawn, each had room when its turn came.
    full: dict[int, int] = dict.fromkeys(range(6), 0)
    for index in train:
        assert labels(index)
        for label in labels(index):
            assert full[label] < shots
            full[label] += 1
    # Greedy to the end: whatever was left over has no label, or one that is full.
    for index in set(pool) - set(train):
        assert not labels(index) or any(full[label] == shots for label in labels(index))


def test_every_order_of_the_pool_is_drawn_alike() -> None:
    # Images 0 and 1 share a label with image 2: it comes if and only if it is first.
    targets = np.array([[1, 0], [0, 1], [1, 1], [1, 1]])
    dataset = dataset_of(targets, {"test": [3], "train": [0, 1, 2]})
    drawn = [tuple(sorted(draw_split(dataset, shots=1, seed=seed).train)) for seed in range(600)]
    assert set(drawn) == {(0, 1), (2,)}
    assert 160 <= drawn.count((2,)) <= 240


def test_images_without_a_label_are_neither_taken_nor_asked() -> None:
    targets = np.zeros((40, 3))
    targets[:6] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]] * 2
    dataset = dataset_of(targets)
    split = draw_split(dataset, shots=9, seed=0, queries=2)
    assert sorted([*split.train, *split.query]) == list(range(6))
    assert len(split.gallery) == 38


@pytest.mark.parametrize("seed", range(3))
def test_equal_seeds_for_protocol_and_shots_are_independent(seed: int) -> None:
    dataset = dataset_of(np.ones((400, 1)))
    split = draw_split(dataset, shots=399, seed=seed, queries=1, protocol_seed=seed)
    assert split.train.tolist() != split.gallery.tolist()


# Parts that the data set defines


def test_parts_are_kept() -> None:
    parts = {"test": [3, 1, 2], "database": list(range(10, 60)), "train": list(range(50, 90))}
    split = draw_split(dataset_of(single_label().targets, parts), shots=2, seed=0)
    assert split.query.tolist() == [3, 1, 2]
    assert sorted(split.gallery) == parts["database"]
    assert split.gallery.tolist() != parts["database"]
    assert set(split.train) <= set(parts["train"])


def test_without_a_database_part_the_rest_is_the_gallery() -> None:
    dataset = dataset_of(single_label().targets, {"test": [0, 1, 2, 3], "train": list(range(4, 50))})
    split = draw_split(dataset, shots=2, seed=0)
    assert sorted(split.gallery) == list(range(4, 120))
    assert set(split.train) <= set(range(4, 50))


def test_without_a_test_part_drawn_queries_leave_the_other_parts() -> None:
    parts = {"database": list(range(60)), "train": list(range(60, 120))}
    split = draw_split(dataset_of(single_label().targets, parts), shots=2, seed=0, queries_per_class=6)
    assert_disjoint(split)
    assert set(split.gallery) == set(parts["database"]) - set(split.query)
    assert set(split.train) <= set(parts["train"])


@pytest.mark.parametrize("part", ["database", "train"])
def test_queries_in_another_part_are_refused(part: str) -> None:
    parts = {"test": [0, 1, 2], "database": list(range(3, 120)), part: list(range(2, 120))}
    dataset = dataset_of(single_label().targets, parts)
    with pytest.raises(NestKALAError, match=rf"1 query images are also in the {part} part.*image 2\\n"):
        draw_split(dataset, shots=1, seed=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 3}, "own test part"),
        ({"queries_per_class": 3}, "own test part"),
        ({"train_pool": 3}, "own train part"),
    ],
)
def test_settings_at_odds_with_the_parts_are_refused(settings: dict[str, int], message: str) -> None:
    dataset = dataset_of(single_label().targets, {"test": [0], "train": list(range(1, 120))})
    with pytest.raises(NestKALAError, match=message):
        draw_split(dataset, shots=1, seed=0, **settings)


def test_a_tenth_of_the_labeled_images_asks_where_nothing_is_set() -> None:
    targets = np.zeros((80, 2))
    targets[10:] = np.eye(2)[np.arange(70) % 2]
    split = draw_split(dataset_of(targets), shots=1, seed=0)
    assert_disjoint(split)
    assert len(split.query) == 7
    assert min(split.query) >= 10
    assert len(split.gallery) == 73


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": -1}, "shots must be 0 or more, not -1"),
        ({"queries_per_class": 0}, "queries_per_class must be at least 1"),
        ({"queries_per_class": None, "queries": -1}, "queries must be 0 or more, not -1"),
        ({"train_pool": 0}, "train_pool must be at least 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"protocol_seed": -1}, "protocol_seed must be 0 or more"),
        ({"queries": 3}, "set either queries_per_class or queries, not both"),
        ({"queries_per_class": 31}, "class 'class 0' has 30 images in the data set, but queries_per_class is 31"),
        ({"queries_per_class": 30}, "gallery is empty"),
        ({"queries_per_class": None, "queries": 121}, "queries is 121, but only 120 images"),
        ({"queries_per_class": 5, "train_pool": 101}, "train_pool is 101, but the gallery has only 100"),
        ({"shots": 26}, "class 'class 0' has 25 images in the training pool, but shots is 26"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(NestKALAError, match=message):
        draw_split(single_label(), **{"shots": 1, "seed": 0, "queries_per_class": 5, **settings})


def test_queries_per_class_need_single_labels() -> None:
    with pytest.raises(NestKALAError, match="exactly one label"):
        draw_split(multi_label(), shots=1, seed=0, queries_per_class=5)


def test_a_pool_without_labels() -> None:
    dataset = dataset_of(np.array([[1, 0], [0, 1], [0, 0]]), {"test": [0, 1], "train": [2]})
    with pytest.raises(NestKALAError, match="none of the 1 images in the training pool has a label"):
        draw_split(dataset, shots=1, seed=0)


# Files


def test_saved_split_comes_back(tmp_path: Path) -> None:
    dataset = single_label()
    split = draw_split(dataset, shots=2, seed=0, queries_per_class=3)
    path = tmp_path / "split.json"
    path.write_text("older")
    save_split(path, split, dataset)
    assert list(tmp_path.iterdir()) == [path]
    content = json.loads(path.read_text())
    assert (content["format"], content["version"]) == ("nestkala-split", 1)
    assert content["train"] == [dataset.names[index] for index in split.train]
    # By name: the order of the images in the data set does not matter.
    order = np.random.default_rng(0).permutation(len(dataset))
    shuffled = dataset.take(order)
    again = load_split(path, shuffled)
    for part in ("train", "query", "gallery"):
        assert getattr(again, part).dtype == np.int64
        assert order[getattr(again, part)].tolist() == getattr(split, part).tolist()


def test_split_cannot_be_written(tmp_path: Path) -> None:
    dataset = single_label()
    split = draw_split(dataset, shots=2, seed=0, queries_per_class=3)
    (tmp_path / "split.json").mkdir()
    with pytest.raises(NestKALAError, match=r"split\.json is a folder: give a file"):
        save_split(tmp_path / "split.json", split, dataset)
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def published(**changes: object) -> dict[str, object]:
    names = single_label().names
    split = {"train": [names[1]], "query": [names[0]], "gallery": [names[1], names[2]]}
    return {"format": "nestkala-split", "version": 1, **split, **changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ([], 'lacks "format": "nestkala-split"'),
        ({"train": []}, 'lacks "format"'),
        (published(version=2), "has version 2, expected 1"),
        (published(query=None), "no list of image names under 'query'"),
        (published(gallery=[1, 2]), "no list of image names under 'gallery'"),
        (published(gallery=[]), "empty gallery part"),
        (published(train=["x", "y"], gallery=["x"]), "names 2 images that are not in the data, such as 'x'"),
        (
            published(gallery=[single_label().names[5]] * 2),
            r"image 'folder 5/.*more than once in its gallery",
        ),
        (
            published(gallery=list(single_label().names[:3])),
            r"1 query images are also in the gallery.*image 0",
        ),
        (
            published(train=list(single_label().names[:2])),
            r"1 query images are also in the train part.*image 0",
        ),
    ],
)
def test_malformed_split_files(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "split.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(NestKALAError, match=message) as error:
        load_split(path, single_label())
    assert "split.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_split_file(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match=r"cannot read .*lost.json: No such file"):
        load_split(tmp_path / "lost.json", single_label())


# Data beside the project


def test_coco256_split(coco256: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(coco256), tmp_path)
    split = draw_split(dataset, shots=1, seed=0)
    assert_disjoint(split)
    assert (len(split.query), len(split.gallery)) == (128, 126)
    assert dataset.targets[split.train].sum(axis=0).max() == 1


def test_cifar10_protocol(cifar10: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(cifar10), tmp_path)
    split = draw_split(dataset, shots=1, seed=0, queries_per_class=100)
    assert_disjoint(split)
    assert (len(split.train), len(split.query), len(split.gallery)) == (10, 1000, 59_000)
    # Published ranks are over a shuffled gallery: any stretch of it holds all classes alike.
    assert dataset.targets[split.gallery[:5900]].sum(axis=0).min() > 500
