import hashlib
import os
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from nestkala.data import ImageDataset, cifar10, load_dataset, without_broken
from nestkala.images.decoding import decode_image
from nestkala.utils.errors import NestKALAError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(folder: Path) -> ImageDataset:
    return load_dataset(str(folder), folder / "unused")


def put_image(path: Path, gray: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), gray).save(path, "PNG")


def pixels(dataset: ImageDataset, index: int) -> np.ndarray:
    return np.asarray(decode_image(dataset.read(index), dataset.names[index]))


def labels(dataset: ImageDataset) -> dict[str, set[str]]:
    """The names of each image's classes."""
    assert dataset.targets.dtype == bool
    assert dataset.targets.shape == (len(dataset), len(dataset.class_names))
    return {
        name: {dataset.class_names[column] for column in np.flatnonzero(row)}
        for name, row in zip(dataset.names, dataset.targets, strict=True)
    }


def one_line(error: pytest.ExceptionInfo[NestKALAError]) -> bool:
    return len(str(error.value).splitlines()) == 1


# Built-in sets


def test_digits() -> None:
    digits = load_dataset("digits", Path("unused"))
    reference = sklearn.datasets.load_digits()
    assert len(digits) == len(set(digits.names)) == 1797
    assert digits.class_names[3] == "three"
    assert (digits.targets.argmax(axis=1) == reference.target).all()
    assert (digits.targets.sum(axis=1) == 1).all()
    assert not digits.parts
    for index in (0, 1000, 1796):
        with Image.open(BytesIO(digits.read(index))) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            assert np.abs(np.asarray(image) / 255 - reference.images[index] / 16).max() <= 0.5 / 255


@pytest.fixture
def small_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray, np.ndarray]:
    """An archive as CIFAR-10's, of two images a batch: its path, their labels (12,) and pixels (12, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    classes, colors = rng.integers(0, 10, 12), rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "downloads" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    batches = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    with tarfile.open(path, "w:gz") as tar:
        for number, batch in reversed(list(enumerate(batches))):
            content = b""
            for image in (2 * number, 2 * number + 1):  # the label, then 1,024 bytes of red, of green and of blue
                content += bytes([classes[image]]) + b"".join(colors[image, :, :, c].tobytes() for c in range(3))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{batch}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path, classes, colors


def test_cifar10_joins_training_and_test_images(small_cifar10: tuple[Path, np.ndarray, np.ndarray]) -> None:
    path, classes, colors = small_cifar10
    cifar = load_dataset("cifar10", path.parent)
    assert cifar.names == [*(f"train/{i}" for i in range(10)), "test/0", "test/1"]
    assert cifar.class_names == CIFAR10_CLASSES
    assert (cifar.targets.argmax(axis=1) == classes).all()
    assert (cifar.targets.sum(axis=1) == 1).all()
    assert not cifar.parts
    for index in range(12):
        assert (pixels(cifar, index) == colors[index]).all()


@pytest.fixture
def broken_server() -> Iterator[str]:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("there_is_another", [False, True])
def test_failed_download_says_what_to_fetch_and_where_to_put_it(
    broken_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_is_another: bool
) -> None:
    monkeypatch.setattr(cifar10, "URL", broken_server)
    if there_is_another:
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"another archive")
    with pytest.raises(NestKALAError) as error:
        load_dataset("cifar10", tmp_path)
    for part in (broken_server, "cifar-10-binary.tar.gz into", str(tmp_path), "503"):
        assert part in str(error.value)
    assert one_line(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("cifar01", "'cifar01'; did you mean 'cifar10'"),
        ("digit", "did you mean 'digits'"),
        ("no/such/folder", "no data set or folder 'no/such/folder'"),
    ],
)
def test_unknown_data(data: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NestKALAError, match=message) as error:
        load_dataset(data, tmp_path)
    assert one_line(error)


def test_a_file_is_no_data(tmp_path: Path) -> None:
    put_image(tmp_path / "image.png")
    with pytest.raises(NestKALAError, match="is a file"):
        load(tmp_path / "image.png")


# Class folders

ODD_NAMES = ["plain.png", "with space.png", "with\nnewline.png", 'it\'s "quoted".png', "ünï.png", " lead.png"]


def test_class_folders(tmp_path: Path) -> None:
    for shade, name in enumerate(ODD_NAMES):
        put_image(tmp_path / "hot dog" / name, shade)
    put_image(tmp_path / "cats'\n" / "1.JPG", 77)
    dataset = load(tmp_path)
    assert dataset.class_names == ("cats'\n", "hot dog")
    assert labels(dataset) == {
        "cats'\n/1.JPG": {"cats'\n"},
        **{f"hot dog/{name}": {"hot dog"} for name in ODD_NAMES},
    }
    assert not dataset.parts
    for shade, name in enumerate(ODD_NAMES):
        assert (pixels(dataset, dataset.names.index(f"hot dog/{name}")) == shade).all()


def test_class_folders_are_sorted_whatever_the_order_of_creation(tmp_path: Path) -> None:
    for name in ["b/2.png", "a/3.png", "b/1.png", "a/1.png", "a/2.png"]:
        put_image(tmp_path / name)
    assert list(load(tmp_path).names) == ["a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png"]


def test_parts_of_class_folders_are_united(tmp_path: Path) -> None:
    for name in ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/emu/1.png"]:
        put_image(tmp_path / name)
    (tmp_path / "val" / "dog").mkdir()
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "dog", "emu")
    assert labels(dataset) == {
        "train/cat/1.png": {"cat"},
        "train/dog/1.png": {"dog"},
        "val/cat/1.png": {"cat"},
        "val/emu/1.png": {"emu"},
    }
    assert not dataset.parts


def test_what_is_no_image_is_left_out(tmp_path: Path) -> None:
    for name in ["a/1.png", "b/1.jpeg", "a/.hidden.png", ".git/1.png", "a/notes.txt", "stray.png"]:
        put_image(tmp_path / name)
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "readme.md").write_text("")
    assert list(load(tmp_path).names) == ["a/1.png", "b/1.jpeg"]


def test_symbolic_links(tmp_path: Path) -> None:
    put_image(tmp_path / "elsewhere" / "1.png")
    for name in ["tree/train/a/1.png", "tree/train/b/1.png", "tree/test/a/1.png"]:
        put_image(tmp_path / name)
    for link, target in {
        "train/up": "..",
        "train/self": ".",
        "again": ".",
        "test/c": "../../elsewhere",
    }.items():
        (tmp_path / "tree" / link).symlink_to(target, target_is_directory=True)
    (tmp_path / "tree" / "endless").symlink_to("endless")
    names = ["test/a/1.png", "test/c/1.png", "train/a/1.png", "train/b/1.png"]
    assert list(load(tmp_path / "tree").names) == names


def test_class_without_images(tmp_path: Path) -> None:
    put_image(tmp_path / "a" / "1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.jxl").write_text("")
    with pytest.raises(NestKALAError, match="b' holds no images") as error:
        load(tmp_path)
    assert one_line(error)


def test_parts_beside_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    for name in ["train/cat/1.png", "train/dog/1.png", "samples/1.png"]:
        put_image(tmp_path / name)
    with pytest.raises(NestKALAError, match="train' holds no images"):
        load(tmp_path)


def test_too_few_class_folders(tmp_path: Path) -> None:
    with pytest.raises(NestKALAError, match="no class folders found"):
        load(tmp_path)
    put_image(tmp_path / "images" / "1.png")
    with pytest.raises(NestKALAError, match=r"only class folder '.*images'"):
        load(tmp_path)


# Lists


def write_lists(folder: Path, lists: dict[str, str], class_names: str = "cat\nhot dog\nemu\n") -> None:
    for line in "".join(lists.values()).splitlines():
        put_image(folder / line.rsplit(maxsplit=3)[0])
    for part, text in lists.items():
        (folder / f"{part}.txt").write_text(text)
    (folder / "classnames.txt").write_text(class_names)


def test_lists(tmp_path: Path) -> None:
    write_lists(
        tmp_path,
        {
            "train": "images/2.png 0 1 1\n./images/1.png 1 0 0\n",
            "database": "images/1.png 1 0 0\nimages/3.png 0 0 0\nimages/2.png 0 1 1\n",
            "test": "more images/a b 1.png\t1  1 1\n",
        },
    )
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "hot dog", "emu")
    assert labels(dataset) == {
        "images/2.png": {"hot dog", "emu"},
        "images/1.png": {"cat"},
        "images/3.png": set(),
        "more images/a b 1.png": {"cat", "hot dog", "emu"},
    }
    named = {part: [dataset.names[index] for index in members] for part, members in dataset.parts.items()}
    assert named == {
        "train": ["images/2.png", "images/1.png"],
        "database": ["images/1.png", "images/3.png", "images/2.png"],
        "test": ["more images/a b 1.png"],
    }
    assert all(members.dtype == np.int64 for members in dataset.parts.values())
    assert pixels(dataset, 3).shape == (4, 4, 3)


def test_one_list_is_enough(tmp_path: Path) -> None:
    write_lists(tmp_path, {"database": "1.png 1 0 0\n"})
    assert list(load(tmp_path).parts) == ["database"]


def test_lists_from_windows(tmp_path: Path) -> None:
    write_lists(tmp_path, {"train": "1.png 1 0 0\n2.png 0 0 1\n"})
    for name in ("train.txt", "classnames.txt"):
        text = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n") + b"\r\n")
    dataset = load(tmp_path)
    assert dataset.class_names == ("cat", "hot dog", "emu")
    assert labels(dataset) == {"1.png": {"cat"}, "2.png": {"emu"}}


def test_listed_paths_need_not_be_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        put_image(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "train.txt").write_bytes(b"caf\xe9.png 1 0\n")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    dataset = load(tmp_path)
    assert list(dataset.names) == [name]
    assert pixels(dataset, 0).shape == (4, 4, 3)


def test_listed_images_are_not_opened(tmp_path: Path) -> None:
    write_lists(tmp_path, {"train": "1.png 1 0 0\n"})
    (tmp_path / "1.png").write_bytes(b"no image")
    assert len(load(tmp_path)) == 1


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "1.png 1 0 0\n2.png 0 1\n"}, r"train.txt:2: 2 labels after the path instead of 3"),
        (
            {"train": "1.png 1 0 0\n\n2.png 0 1 0 1\n"},
            r"train.txt:3: no image file '2.png 0' .* last 3 columns",
        ),
        ({"train": "1.png 1 0 2\n"}, r"train.txt:1: labels must be 0 or 1, not '2'"),
        ({"test": "1.png 1 0 1.0\n"}, r"test.txt:1: labels must be 0 or 1, not '1.0'"),
        ({"train": "1.png 1 0 0\n", "test": "2.png 1 0 0\nlost.png 1 0 0\n"}, r"test.txt:2: .*'lost.png'"),
        (
            {"train": "1.png 1 0 0\n1.png 1 0 0\n"},
            r"train.txt:2: image '1.png' is already listed at .*train.txt:1",
        ),
        (
            {"train": "1.png 1 0 0\n", "database": "2.png 1 0 0\n1.png 1 0 1\n"},
            r"database.txt:2: image '1.png' has different labels at .*train.txt:1",
        ),
        ({"train": "1.png 1 0 0\n", "test": "\n"}, r"test.txt' lists no images"),
    ],
)
def test_malformed_lists_are_named_with_line(tmp_path: Path, lists: dict[str, str], message: str) -> None:
    put_image(tmp_path / "1.png")
    put_image(tmp_path / "2.png")
    for part, text in lists.items():
        (tmp_path / f"{part}.txt").write_text(text)
    (tmp_path / "classnames.txt").write_text("cat\ndog\nemu\n")
    with pytest.raises(NestKALAError, match=message) as error:
        load(tmp_path)
    assert one_line(error)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (None, r"no '.*classnames.txt'"),
        ("\n", "names no classes"),
        ("cat\nemu\ncat\n", "'cat' more than once"),
    ],
)
def test_malformed_class_names(tmp_path: Path, class_names: str | None, message: str) -> None:
    write_lists(tmp_path, {"train": "1.png 1 0 0\n"}, class_names or "")
    if class_names is None:
        (tmp_path / "classnames.txt").unlink()
    with pytest.raises(NestKALAError, match=message):
        load(tmp_path)


def test_class_names_without_any_list(tmp_path: Path) -> None:
    write_lists(tmp_path, {})
    with pytest.raises(NestKALAError, match=r"none of train.txt; database.txt or gallery.txt; test.txt or query.txt"):
        load(tmp_path)


def test_lists_may_be_called_as_in_kalahash_and_name_files_in_images(tmp_path: Path) -> None:
    write_lists(
        tmp_path, {"train": "images/2.png 0 1 1\n", "gallery": "images/1.png 1 0 0\n", "query": "3.png 0 0 1\n"}
    )
    (tmp_path / "gallery.txt").write_text("1.png 1 0 0\nimages/2.png 0 1 1\n")
    dataset = load(tmp_path)
    named = {part: [dataset.names[index] for index in members] for part, members in dataset.parts.items()}
    assert named == {"train": ["images/2.png"], "database": ["images/1.png", "images/2.png"], "test": ["3.png"]}
    assert all(pixels(dataset, index).shape == (4, 4, 3) for index in range(3))


@pytest.mark.parametrize("name", ["val.txt", "Train.txt", "queries.txt", "database_img.txt", "unlabeled.lst", "query"])
@pytest.mark.parametrize("kind", ["lists", "class folders"])
def test_a_list_that_nobody_would_read_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "lists":
        write_lists(tmp_path, {"train": "1.png 1 0 0\n"})
    else:
        put_image(tmp_path / "a" / "1.png")
        put_image(tmp_path / "b" / "1.png")
    (tmp_path / "readme.txt").write_text("Images of cats 1\n")
    (tmp_path / "license").write_text("\n")
    load(tmp_path)
    (tmp_path / name).write_text("\n1.png 1 0 0\n")
    with pytest.raises(NestKALAError, match=rf"{name}' looks like a list .* named train.txt; database.txt or gallery"):
        load(tmp_path)


def test_two_lists_of_one_part_are_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, {"test": "1.png 1 0 0\n", "query": "2.png 1 0 0\n"})
    with pytest.raises(NestKALAError, match=r"holds test.txt and query.txt, two names for the test part"):
        load(tmp_path)


# Class names in Unicode's forms

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_folders_of_one_class_in_two_forms_are_one_class(tmp_path: Path) -> None:
    for name in (f"train/{COMPOSED}/1.png", f"test/{DECOMPOSED}/2.png", "train/tea/3.png", "test/tea/4.png"):
        put_image(tmp_path / name)
    dataset = load(tmp_path)
    assert dataset.class_names == (COMPOSED, "tea")
    assert labels(dataset)[f"test/{DECOMPOSED}/2.png"] == {COMPOSED}
    assert dataset.targets.sum(axis=0).tolist() == [2, 2]
    (note,) = dataset.notes
    assert "merged 2 folder names of class 'café'" in note
    assert load_dataset(str(tmp_path), tmp_path, f"{DECOMPOSED},tea,mate").class_names == (COMPOSED, "tea", "mate")


def test_class_names_that_differ_in_form_alone_are_named_twice(tmp_path: Path) -> None:
    write_lists(tmp_path, {"train": "1.png 1 0 0\n"}, f"{COMPOSED}\n{DECOMPOSED}\nemu\n")
    with pytest.raises(NestKALAError, match=f"names the class '{COMPOSED}' more than once"):
        load(tmp_path)
    write_lists(tmp_path, {"train": "1.png 1 0 0\n"}, f"{DECOMPOSED}\nhot dog\nemu\n")
    assert load(tmp_path).class_names[0] == COMPOSED


# Photographs in other formats


def test_photographs_in_other_formats_are_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        put_image(tmp_path / name)
    for name in ("a/1.jxl", "b/2.JXL", "b/3.nef", "b/4.mov", "b/notes.txt", "b/.5.mov"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "6.mov").mkdir()
    (note,) = load(tmp_path).notes
    assert note == "note: skipped 4 files in unsupported formats (2 JPEG XL, 1 raw, 1 video)"
    (tmp_path / "c").mkdir()
    with pytest.raises(NestKALAError, match=r"c' holds no images \(only 4 files in unsupported formats"):
        load(tmp_path)


# Every source


def test_datasets_can_be_pickled(tmp_path: Path) -> None:
    write_lists(tmp_path / "lists", {"train": "1.png 1 0 0\n"})
    put_image(tmp_path / "tree" / "a" / "1.png")
    put_image(tmp_path / "tree" / "b" / "1.png")
    for data in ("digits", str(tmp_path / "lists"), str(tmp_path / "tree")):
        dataset = load_dataset(data, tmp_path)
        copy = pickle.loads(pickle.dumps(dataset))
        assert list(copy.names) == list(dataset.names)
        assert copy.read(0) == dataset.read(0)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    put_image(tmp_path / "a" / "1.png")
    put_image(tmp_path / "b" / "1.png")
    dataset = load(tmp_path)
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(NestKALAError, match=r"'b/1.png'.*No such file"):
        dataset.read(1)


def test_without_broken_drops_images_and_keeps_parts_consistent(tmp_path: Path) -> None:
    write_lists(
        tmp_path,
        {
            "train": "1.png 1 0 0\n2.png 0 1 0\n3.png 0 0 1\n",
            "database": "3.png 0 0 1\n4.png 1 1 1\n1.png 1 0 0\n",
            "test": "5.png 0 1 1\n",
        },
    )
    before = load(tmp_path)
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:40])
    dataset, broken = without_broken(before)
    assert broken == ["2.png", "3.png"]
    assert list(dataset.names) == ["1.png", "4.png", "5.png"]
    assert labels(dataset) == {name: labels(before)[name] for name in dataset.names}
    named = {part: [dataset.names[index] for index in members] for part, members in dataset.parts.items()}
    assert named == {"train": ["1.png"], "database": ["4.png", "1.png"], "test": ["5.png"]}
    assert pixels(dataset, 2).shape == (4, 4, 3)


def test_without_broken_of_intact_and_of_unreadable_data(tmp_path: Path) -> None:
    write_lists(tmp_path, {"train": "1.png 1 0 0\n2.png 0 1 0\n"})
    dataset = load(tmp_path)
    intact, broken = without_broken(dataset)
    assert (list(intact.names), broken) == (["1.png", "2.png"], [])
    for name in dataset.names:
        (tmp_path / name).unlink()
    with pytest.raises(NestKALAError, match="none of the 2 images can be read"):
        without_broken(dataset)


def test_taking_images_from_memory() -> None:
    digits = load_dataset("digits", Path("unused"))
    taken = digits.take(np.array([7, 3]))
    assert list(taken.names) == ["7", "3"]
    assert labels(taken) == {"7": {"seven"}, "3": {"three"}}
    assert [taken.read(0), taken.read(1)] == [digits.read(7), digits.read(3)]


# Data beside the project


def test_coco256(coco256: Path) -> None:
    dataset = load(coco256)
    sizes = {part: len(members) for part, members in dataset.parts.items()}
    assert sizes == {"train": 126, "database": 126, "test": 128}
    assert (len(dataset), len(dataset.class_names)) == (254, 80)
    line = (coco256 / "test.txt").read_text().splitlines()[5].split()
    index = dataset.parts["test"][5]
    assert dataset.names[index] == line[0]
    assert dataset.targets[index].astype(int).tolist() == [int(label) for label in line[1:]]
    assert without_broken(dataset)[1] == []


def test_cifar10_folders(cifar10: Path) -> None:
    dataset = load(cifar10)
    assert dataset.class_names == CIFAR10_CLASSES
    assert dataset.targets.sum(axis=0).tolist() == [6000] * 10
    assert dataset.names[0] == "test/airplane/0000.jpg"
    assert pixels(dataset, 59_999).shape == (32, 32, 3)
