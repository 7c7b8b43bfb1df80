"""Manifests, COCO annotations, and data sets of Hugging Face and torchvision, against what was written by hand."""

import bz2
import csv
import gzip
import hashlib
import io
import json
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nestkala.data import ImageDataset, cifar10, load_dataset, with_archive
from nestkala.data.splits import draw_split
from nestkala.images.decoding import decode_image
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.utils.errors import NestKALAError

IMAGES = {"a.png": 10, "b.png": 20, "deep/c.png": 30, "d.png": 40, "e.png": 50, "f.png": 60}
LABELS = {"a.png": {"cat"}, "b.png": {"dog"}, "deep/c.png": {"cat", "dog"}, "d.png": {"emu"}, "e.png": set()}
SPLITS = {"a.png": "train", "b.png": "train", "deep/c.png": "query", "d.png": "gallery", "e.png": "gallery"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Gray images, each of its own value."""
    for name, gray in IMAGES.items():
        put(tmp_path / "photos" / name, gray)
    return tmp_path / "photos"


def put(path: Path, gray: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), gray).save(path, "PNG")


def load(data: Path | str, classes: str | None = None) -> ImageDataset:
    return load_dataset(str(data), Path("unused"), classes)


def labels(dataset: ImageDataset) -> dict[str, set[str]]:
    assert dataset.targets.shape == (len(dataset), len(dataset.class_names))
    return {
        name: {dataset.class_names[column] for column in np.flatnonzero(row)}
        for name, row in zip(dataset.names, dataset.targets, strict=True)
    }


def parts(dataset: ImageDataset) -> dict[str, list[str]]:
    return {part: [dataset.names[index] for index in members] for part, members in dataset.parts.items()}


def gray(dataset: ImageDataset, index: int) -> int:
    return int(np.asarray(decode_image(dataset.read(index), "image"))[0, 0, 0])


def rows(path: str, label: str, split: str, several: Any) -> list[dict[str, Any]]:
    return [{path: name, "width": 4, label: several(sorted(of)), split: SPLITS[name]} for name, of in LABELS.items()]


def write(path: Path, table: list[dict[str, Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
        parquet.write_table(arrow.Table.from_pylist(table), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(table)
    return path


def refusal(data: Path | str, classes: str | None = None) -> str:
    with pytest.raises(NestKALAError) as caught:
        load(data, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Manifests


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("list.csv", ";".join),
        ("list.csv", " | ".join),
        ("list.tsv", ";".join),
        ("list.jsonl", list),
        ("list.jsonl", ";".join),
        ("list.parquet", list),
        ("list.parquet", "|".join),
    ],
)
def test_a_manifest_names_images_labels_and_splits(folder: Path, name: str, several: Any) -> None:
    delimiter = "\t" if name.endswith("tsv") else ","
    found = load(write(folder / name, rows("File Name", "Tags", "split", several), delimiter))
    assert found.class_names == ("cat", "dog", "emu")
    assert labels(found) == LABELS
    assert parts(found) == {"train": ["a.png", "b.png"], "test": ["deep/c.png"], "database": ["d.png", "e.png"]}
    assert [gray(found, index) for index in range(5)] == [10, 20, 30, 40, 50]


def test_columns_can_be_named(folder: Path) -> None:
    table = [{"where": name, "what": "|".join(of), "else": "animal"} for name, of in LABELS.items()]
    path = write(folder / "my:list.csv", table)
    assert labels(load(f"{path}:path=where,label=what")) == LABELS
    assert labels(load(f"{path}:path=where,label=what,label=else")) == {
        name: of | {"animal"} for name, of in LABELS.items()
    }


def test_columns_that_are_not_recognized_are_listed(folder: Path) -> None:
    path = write(folder / "list.csv", [{"where": "a.png", "what": "cat"}])
    said = refusal(path)
    for part in ("no recognized column for the path", "'where', 'what'", f"{path}:path=COLUMN,label=COLUMN"):
        assert part in said
    assert "no column 'wher'; did you mean 'where'?" in refusal(f"{path}:path=wher,label=what")
    assert "no recognized column for the label" in refusal(f"{path}:path=where")
    assert "'what' is not a column" in refusal(f"{path}:path=where,what")
    path = write(folder / "two.csv", [{"file": "a.png", "path": "a.png", "label": "cat"}])
    assert "several columns for the path, file and path" in refusal(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a.png,cat\nb.png,dog\n", "no recognized column for the path"),
        ("path,label\n", "lists no images"),
        ("path,label\na.png,cat\nnone.png,dog\n", "list.csv:3: no image file 'none.png'"),
        ("path,label\na.png,cat\n\nb.png,dog,emu\n", "list.csv:4: 3 cells, but the header names 2 columns"),
        ("path,label\n,cat\n", "list.csv:2: no path"),
        ("path,label\na.png,cat\nb.png,cat\n", "only the class 'cat'"),
        ("path,label\na.png,\n", "has no classes"),
        ("path,path,label\na.png,a.png,cat\n", "column 'path' more than once"),
        ("path,label,split\na.png,cat,train\nb.png,dog,tain\n", "'tain'; did you mean 'train'?"),
        ("path,label\n\0,cat\n", "instead of a path"),
        (f"path,label\na.png,{'x' * 2000}\n", "class name of 2000 characters"),
    ],
)
def test_a_malformed_manifest_is_told_by_line(folder: Path, text: str, said: str) -> None:
    (folder / "list.csv").write_text(text)
    assert said in refusal(folder / "list.csv")


def test_malformed_json_lines_are_told_by_line(folder: Path) -> None:
    path = folder / "list.jsonl"
    path.write_text('{"path": "a.png", "label": "cat"}\n{"path": \n')
    assert "list.jsonl:2 is not JSON" in refusal(path)
    path.write_text('{"path": "a.png", "label": "cat"}\n["b.png"]\n')
    assert "list.jsonl:2: list instead of an object" in refusal(path)
    path.write_text('{"path": "a.png", "label": {"name": "cat"}}\n')
    assert "is not a label" in refusal(path)
    path.write_text('{"path": {"bytes": "x"}, "label": "cat"}\n')
    assert "hf:FOLDER reads tables that hold the images" in refusal(path)


def test_parquet_that_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (folder / "list.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "is not a readable Parquet file" in refusal(folder / "list.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert 'pip install "nestkala[parquet]"' in refusal(folder / "list.parquet")


def test_rows_of_one_image_are_put_together_and_numbers_are_classes(folder: Path) -> None:
    table = [("a.png", 10), ("b.png", 9), ("a.png", 2)]
    found = load(write(folder / "list.parquet", [{"image": name, "label": label} for name, label in table]))
    assert found.class_names == ("2", "9", "10")
    assert labels(found) == {"a.png": {"2", "10"}, "b.png": {"9"}}
    assert not found.parts


def test_classes_may_be_given(folder: Path) -> None:
    path = write(folder / "list.csv", [{"path": "a.png", "label": "cat"}, {"path": "b.png", "label": "dog"}])
    assert load(path, "dog,yak,cat").class_names == ("dog", "yak", "cat")
    assert "list.csv:3: 'dog'" in refusal(path, "cat,yak")


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (("train", "val", "test"), {"train": [0], "test": [2]}),
        (("train", "train", "validation"), {"train": [0, 1], "test": [2]}),
        (("train", "train", "train"), {}),
        (("Train", "", "gallery"), {"train": [0], "database": [2]}),
        (("test", "", ""), {"test": [0]}),
    ],
)
def test_what_splits_become(folder: Path, splits: tuple[str, ...], expected: dict[str, list[int]]) -> None:
    table = [
        {"path": name, "label": label, "split": split}
        for name, label, split in zip(IMAGES, ("cat", "dog", "cat"), splits, strict=False)
    ]
    found = load(write(folder / "list.csv", table))
    assert {part: members.tolist() for part, members in found.parts.items()} == expected


def test_an_archive_may_be_a_manifest(folder: Path) -> None:
    labeled = load(write(folder / "few.csv", [{"path": "a.png", "label": "cat"}, {"path": "b.png", "label": "dog"}]))
    write(folder / "all.csv", [{"where": name, "n": number} for name, number in IMAGES.items()])
    both = with_archive(labeled, Path(f"{folder / 'all.csv'}:path=where"))
    assert [gray(both, index) for index in range(len(both))] == [10, 20, 30, 40, 50, 60]
    assert both.parts["archive"].tolist() == [2, 3, 4, 5]
    with pytest.raises(NestKALAError, match="no recognized column for the path"):
        with_archive(labeled, folder / "all.csv")


def test_a_run_from_a_manifest(folder: Path, tmp_path: Path) -> None:
    table = [{"path": name, "label": "cd"[number % 2]} for number, name in enumerate(IMAGES)]
    small = {"queries": 2, "lengths": (4, 8), "epochs": 1, "workers": 0, "cache_gb": 0, "head_init": "random"}
    run = train(Config(data=str(write(folder / "list.csv", table)), output=tmp_path / "run", **small))
    split = json.loads((run / "split.json").read_text())
    assert len(split["query"]) == 2
    assert {*split["query"], *split["gallery"]} == set(IMAGES)


# Hugging Face's ImageFolder


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_in_the_folder(folder: Path, name: str) -> None:
    write(folder / name, rows("file_name", "label", "split", "|".join))
    found = load(folder)
    assert labels(found) == LABELS
    assert parts(found)["test"] == ["deep/c.png"]


def test_metadata_in_the_folders_of_splits(tmp_path: Path) -> None:
    for split, number in (("train", 3), ("validation", 2), ("test", 2)):
        for row in range(number):
            put(tmp_path / split / f"{row}.png", row)
        write(
            tmp_path / split / "metadata.csv", [{"file_name": f"{n}.png", "label": "ab"[n % 2]} for n in range(number)]
        )
    found = load(tmp_path)
    assert labels(found)["validation/1.png"] == {"b"}
    assert parts(found) == {"train": [f"train/{n}.png" for n in range(3)], "test": ["test/0.png", "test/1.png"]}
    split = draw_split(found, shots=1, seed=0)
    assert {found.names[index] for index in split.gallery} >= {"validation/0.png", "validation/1.png"}


def test_other_metadata_leaves_class_folders_as_they_are(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        put(tmp_path / name / "1.png", 0)
    write(tmp_path / "metadata.csv", [{"author": "me"}])
    assert load(tmp_path).class_names == ("cat", "dog")


def test_metadata_without_labels_and_twice(folder: Path) -> None:
    write(folder / "metadata.csv", [{"file_name": "a.png", "text": "a cat"}])
    assert "no recognized column for the label: it has 'file_name', 'text'" in refusal(folder)
    write(folder / "metadata.jsonl", [{"file_name": "a.png", "label": "cat"}])
    assert "metadata.csv and metadata.jsonl: keep only one" in refusal(folder)


# COCO


def annotations(images: list[str], objects: list[tuple[int, int]]) -> dict[str, Any]:
    return {
        "images": [{"id": 100 + number, "file_name": name} for number, name in enumerate(images)],
        "annotations": [{"image_id": 100 + image, "category_id": category} for image, category in objects],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    }


def put_coco(root: Path) -> None:
    for place in ("train2017/1.png", "train2017/2.png", "train2017/3.png", "val2017/1.png", "val2017/4.png"):
        put(root / place, int(Path(place).stem))
    (root / "annotations").mkdir()
    train = annotations(["1.png", "2.png", "3.png"], [(0, 18), (0, 1), (2, 17), (0, 18)])
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(train))
    val = annotations(["1.png", "4.png"], [(1, 17), (0, 1)])
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(val))


def test_coco_annotations(tmp_path: Path) -> None:
    put_coco(tmp_path)
    found = load(tmp_path / "annotations" / "instances_train2017.json")
    assert found.class_names == ("person", "cat", "dog")
    assert labels(found) == {
        "train2017/1.png": {"person", "dog"},
        "train2017/2.png": set(),
        "train2017/3.png": {"cat"},
    }
    assert not found.parts
    assert [gray(found, index) for index in range(3)] == [1, 2, 3]
    both = load(tmp_path)
    assert parts(both) == {
        "train": ["train2017/1.png", "train2017/2.png", "train2017/3.png"],
        "test": ["val2017/1.png", "val2017/4.png"],
    }
    assert labels(both)["val2017/4.png"] == {"cat"}
    labeled = load(write(tmp_path / "few.csv", [{"path": f"train2017/{n}.png", "label": n} for n in (1, 2)]))
    archive = with_archive(labeled, tmp_path / "annotations" / "instances_val2017.json")
    assert [gray(archive, index) for index in archive.parts["archive"]] == [1, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda all_: all_.pop("images"), "no list 'images'"),
        (lambda all_: all_["images"][0].pop("file_name"), "images[0] has no 'file_name' (str)"),
        (lambda all_: all_["annotations"][1].update(image_id=5), "annotations[1] refers to image 5 and category 1"),
        (lambda all_: all_["annotations"][0].update(category_id="x"), "annotations[0] has no 'category_id' (int)"),
        (lambda all_: all_["categories"][0].update(id=1), "has a category id twice"),
        (lambda all_: all_["categories"][0].update(name="cat"), "has a category name twice"),
        (lambda all_: all_["images"][2].update(file_name="9.png"), "no image file '9.png'"),
        (lambda all_: all_["images"][0].update(file_name="9.png"), "no image file '9.png' in "),
    ],
)
def test_malformed_coco_annotations(tmp_path: Path, change: Any, said: str) -> None:
    put_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert said in refusal(path)


def test_other_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[1]")
    assert "is not a file of COCO annotations" in refusal(tmp_path / "x.json")
    assert "has its own classes" in refusal(tmp_path / "x.json", "a,b")


# Hugging Face's datasets


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def as_png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def written(datasets: Any, folder: Path, splits: dict[str, list[tuple[int, Any]]], feature: Any) -> Path:
    """A folder with a Parquet file for each split, as the hub has them: encoded images and labels of a kind."""
    import pyarrow
    from pyarrow.parquet import write_table

    features = datasets.Features({"picture": datasets.Image(), "kind": feature, "id": datasets.Value("int64")})
    folder.mkdir()
    for split, images in splits.items():
        table = [
            {"picture": {"bytes": as_png(value), "path": None}, "kind": label, "id": number}
            for number, (value, label) in enumerate(images)
        ]
        write_table(pyarrow.Table.from_pylist(table, features.arrow_schema), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_a_data_set_of_hugging_face(tmp_path: Path, offline: Any, form: str) -> None:
    splits = {"train": [(10, 0), (20, 1), (30, -1)], "validation": [(40, 1)], "test": [(50, 0)]}
    folder = written(offline, tmp_path / "set", splits, offline.ClassLabel(names=["cat", "dog"]))
    if form == "saved":
        offline.load_dataset(str(folder)).save_to_disk(str(tmp_path / "saved"))
        folder = tmp_path / "saved"
    found = load(f"hf:{folder}")
    assert found.class_names == ("cat", "dog")
    assert labels(found) == {
        **{"train/0": {"cat"}, "train/1": {"dog"}, "train/2": set()},
        **{"validation/0": {"dog"}, "test/0": {"cat"}},
    }
    assert parts(found) == {"train": ["train/0", "train/1", "train/2"], "test": ["test/0"]}
    assert [gray(found, index) for index in range(5)] == [10, 20, 30, 40, 50]
    assert [gray(found.take(np.array([4, 1])), index) for index in range(2)] == [50, 20]


def test_several_labels_and_words_of_hugging_face(tmp_path: Path, offline: Any) -> None:
    names = offline.ClassLabel(names=["cat", "dog", "emu"])
    folder = written(offline, tmp_path / "set", {"train": [(1, [0, 2]), (2, []), (3, [1])]}, offline.List(names))
    assert labels(load(f"hf:{folder}")) == {"train/0": {"cat", "emu"}, "train/1": set(), "train/2": {"dog"}}
    folder = written(offline, tmp_path / "words", {"train": [(1, "yak"), (2, "ant")]}, offline.Value("string"))
    said = refusal(f"hf:{folder}")
    assert "no columns that could be the label: it has 'picture', 'kind', 'id'" in said
    assert f"hf:{folder}:image=COLUMN,label=COLUMN" in said
    assert labels(load(f"hf:{folder}:label=kind")) == {"train/0": {"yak"}, "train/1": {"ant"}}
    assert "no images in column 'id'" in refusal(f"hf:{folder}:image=id,label=kind")


@pytest.mark.usefixtures("offline")
def test_class_folders_through_datasets(tmp_path: Path) -> None:
    for number, name in enumerate(("train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png")):
        put(tmp_path / "set" / name, 10 * number)
    found = load(f"hf:{tmp_path / 'set'}")
    assert found.class_names == ("cat", "dog")
    assert sorted(found.parts) == ["test", "train"]
    assert sorted(gray(found, index) for index in found.parts["test"]) == [20, 30]
    assert {gray(found, index): labels(found)[name] for index, name in enumerate(found.names)} == {
        **{0: {"cat"}, 10: {"dog"}},
        **{20: {"cat"}, 30: {"dog"}},
    }


@pytest.mark.usefixtures("offline")
def test_what_datasets_cannot_have(tmp_path: Path) -> None:
    assert "datasets cannot load" in refusal(f"hf:{tmp_path / 'nothing'}")
    assert "has its own classes" in refusal("hf:x", "a,b")


def test_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert 'pip install "nestkala[hf]"' in refusal("hf:x")


# torchvision


def usps(path: Path, labels: list[int], rng: np.random.Generator) -> np.ndarray:
    """A file as USPS has it, of one image a line, and its pixels."""
    pixels = rng.integers(0, 256, (len(labels), 256))
    lines = [
        f"{label + 1} " + " ".join(f"{number}:{value / 255 * 2 - 1:.10f}" for number, value in enumerate(row, 1))
        for label, row in zip(labels, pixels, strict=True)
    ]
    path.write_bytes(bz2.compress(("\n".join(lines) + "\n").encode()))
    return pixels.reshape(-1, 16, 16)


def test_numbers_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    rng = np.random.default_rng(0)
    written = {split: usps(tmp_path / f"{split}.bz2", of, rng) for split, of in (("train", [3, 0, 9]), ("test", [5]))}
    sums = {split: hashlib.md5((tmp_path / f"{split}.bz2").read_bytes()).hexdigest() for split in written}
    monkeypatch.setattr(
        torchvision.datasets.USPS, "split_list", {split: ["", f"{split}.bz2", of] for split, of in sums.items()}
    )
    found = load_dataset("torchvision:USPS", tmp_path)
    assert labels(found) == {"train/0": {"three"}, "train/1": {"zero"}, "train/2": {"nine"}, "test/0": {"five"}}
    assert parts(found)["test"] == ["test/0"]
    shown = np.asarray(decode_image(found.read(3), "x"))[:, :, 0].astype(int)
    assert np.abs(shown - written["test"][0]).max() <= 1


def test_images_of_torchvision_stay_in_their_files(tmp_path: Path) -> None:
    root = tmp_path / "eurosat" / "2750"
    for number, name in enumerate(("Forest/1.jpg", "River/2.jpg", "River/3.jpg")):
        put(root / name, 10 * number)
    found = load_dataset("torchvision:EuroSAT", tmp_path)
    assert found.class_names == ("Forest", "River")
    assert labels(found) == {
        "eurosat/2750/Forest/1.jpg": {"Forest"},
        "eurosat/2750/River/2.jpg": {"River"},
        "eurosat/2750/River/3.jpg": {"River"},
    }
    assert not found.parts
    assert found.content(1) == root / "River/2.jpg"


def test_splits_of_torchvision(tmp_path: Path) -> None:
    dtd = tmp_path / "dtd" / "dtd"
    for split, names in {"train": ["bumpy/1.jpg"], "val": ["lined/2.jpg"], "test": ["bumpy/3.jpg"]}.items():
        for name in names:
            put(dtd / "images" / name, 0)
        (dtd / "labels").mkdir(exist_ok=True)
        (dtd / "labels" / f"{split}1.txt").write_text("\n".join(names) + "\n")
    with pytest.raises(NestKALAError, match="have different classes"):
        load_dataset("torchvision:DTD", tmp_path)
    for split in ("train", "val", "test"):
        put(dtd / "images" / f"bumpy/{split}.jpg", 0)
        put(dtd / "images" / f"lined/{split}.jpg", 0)
        (dtd / "labels" / f"{split}1.txt").write_text(f"bumpy/{split}.jpg\nlined/{split}.jpg\n")
    found = load_dataset("torchvision:DTD", tmp_path)
    assert labels(found)["dtd/dtd/images/lined/val.jpg"] == {"lined"}
    assert parts(found) == {
        part: [f"dtd/dtd/images/{name}/{part}.jpg" for name in ("bumpy", "lined")] for part in ("train", "test")
    }


def test_cifar100_is_read_from_its_binary_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    names = [f"thing_{number}" for number in range(100)]
    fine, pixels = rng.integers(0, 100, 5), rng.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    record = [struct.pack("BB", 7, label) + of.tobytes() for label, of in zip(fine, pixels, strict=True)]
    members = {
        "train.bin": b"".join(record[:3]),
        "test.bin": b"".join(record[3:]),
        "fine_label_names.txt": "\n".join(names).encode(),
    }
    path = tmp_path / "cifar-100-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(cifar10, "MD5_100", hashlib.md5(path.read_bytes()).hexdigest())
    found = load_dataset("torchvision:CIFAR100", tmp_path)
    assert found.names == ["train/0", "train/1", "train/2", "test/0", "test/1"]
    assert [*labels(found).values()] == [{f"thing {label}"} for label in fine]
    for index in range(5):
        assert (np.asarray(decode_image(found.read(index), "x")) == pixels[index].transpose(1, 2, 0)).all()


def test_mnist_from_its_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, of in {"train": [1, 2, 3], "t10k": [7, 0]}.items():
        pixels = rng.integers(0, 256, (len(of), 28, 28), dtype=np.uint8)
        images = struct.pack(">IIII", 0x803, len(of), 28, 28) + pixels.tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(of)) + bytes(of))
        (raw / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    found = load_dataset("torchvision:MNIST", tmp_path)
    assert [*labels(found).values()] == [{"one"}, {"two"}, {"three"}, {"seven"}, {"zero"}]
    assert (np.asarray(decode_image(found.read(4), "x"))[:, :, 0] == pixels[1]).all()
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed").mkdir(exist_ok=True)
        (tmp_path / "MNIST" / "processed" / name).write_bytes(b"a pickle")
    with pytest.raises(NestKALAError, match=r"training.pt, from an early torchvision, would be unpickled"):
        load_dataset("torchvision:MNIST", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ImageNet", "NestKALA unpickles nothing"),
        ("LSUN", "unpickled"),
        ("Flower102", "did you mean 'Flowers102'?"),
        ("Kinetics", "or a manifest"),
    ],
)
def test_what_is_not_read_of_torchvision(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(NestKALAError, match="torchvision") as caught:
        load_dataset(f"torchvision:{name}", tmp_path)
    assert said in str(caught.value)


def test_what_cannot_be_downloaded_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.food101, "download_and_extract_archive", fail)
    with pytest.raises(NestKALAError, match=r"cannot be downloaded \(no network\)") as caught:
        load_dataset("torchvision:Food101", tmp_path / "root")
    assert str(tmp_path / "root") in str(caught.value)
