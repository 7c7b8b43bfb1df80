"""A few labels, or names alone, and an archive without labels: what is learned from, scored, and refused."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nestkala import Hasher
from nestkala.cli import main
from nestkala.data import load_dataset, with_archive
from nestkala.data.splits import draw_split, load_split, save_split
from nestkala.settings.config import Config
from nestkala.training.run import train
from nestkala.training.trainer import Trainer
from nestkala.utils.errors import NestKALAError
from reliability.launching import Launch

TRAIN_PY = Path(__file__).parents[2] / "train.py"
CLASSES = ("zero", "one", "two")
LABELED = {"zero": 4, "one": 1, "two": 2}
"""Labeled images of each class."""
ARCHIVE = 30


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Handwritten digits as PNG: few with labels, as class folders and as lists, and an archive of others."""
    folder = tmp_path_factory.mktemp("work")
    dataset = load_dataset("digits", Path())
    of_class = {name: np.flatnonzero(dataset.targets[:, dataset.class_names.index(name)]) for name in CLASSES}
    lines = []
    for name, count in LABELED.items():
        (folder / "labeled" / name).mkdir(parents=True)
        for index in of_class[name][:count]:
            (folder / "labeled" / name / f"{index}.png").write_bytes(dataset.read(index))
            lines.append(f"images/{index}.png " + " ".join(str(int(other == name)) for other in CLASSES))
    (folder / "lists" / "images").mkdir(parents=True)
    for path in (folder / "labeled").rglob("*.png"):
        shutil.copy(path, folder / "lists" / "images")
    (folder / "lists" / "train.txt").write_text("\n".join(lines))
    (folder / "lists" / "classnames.txt").write_text("\n".join([*CLASSES, "three"]))
    (folder / "lists" / "train.txt").write_text("".join(f"{line} 0\n" for line in lines))
    for place in range(ARCHIVE):
        name = CLASSES[place % 3]
        path = folder / "photos" / f"{place % 2}" / "deep" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.read(of_class[name][10 + place]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTKALA_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def settings(folder: Path, **changes: object) -> Config:
    small: dict[str, object] = {
        **{"output": folder, "data": "labeled", "archive": "photos", "lengths": (4, 12)},
        **{"workers": 0, "threads": 1},
        **({} if changes.get("data") == "none" else {"epochs": 2, "checkpoint_every": 1}),
    }
    return Config(**(small | changes))


def split_of(run: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((run / "split.json").read_text())
    return found


def metrics_of(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "metrics.json").read_text())
    return found


def assert_without_map(run: Path) -> None:
    """There are no queries, and how well near copies are found needs none."""
    lengths = metrics_of(run)["lengths"]
    assert {bits: sorted(scores) for bits, scores in lengths.items()} == {  # type: ignore[attr-defined]
        bits: ["copy_recall_at_1", "copy_recall_at_10"] for bits in ("4", "12")
    }


def archive_names(folder: Path = Path("photos")) -> list[str]:
    """What a run is to call an archive's images, found by another way than its own."""
    return sorted(
        f"archive//{Path(parent, name).relative_to(folder)}" for parent, _, files in os.walk(folder) for name in files
    )


@pytest.fixture(scope="module")
def run(work: Path) -> Path:
    """On all labels there are, fewer than a batch."""
    return train(settings(work / "runs" / "all"))


def test_every_label_is_trained_on_and_the_archive_is_what_has_none(run: Path) -> None:
    split = split_of(run)
    assert sorted(split["train"]) == sorted(
        path.relative_to("labeled").as_posix() for path in Path("labeled").rglob("*.png")
    )
    assert split["query"] == []
    assert sorted(split["archive"]) == sorted(split["gallery"]) == archive_names()
    assert split["archive"] != archive_names()  # the first so many are any
    assert_without_map(run)
    assert (run / "checkpoint.safetensors").exists()
    codes = Hasher.from_pretrained(run).encode(sorted(Path("photos").rglob("*.png")))
    assert codes.shape == (ARCHIVE, 2)


def test_labels_change_what_is_learned_and_so_does_the_archive(run: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    shutil.copytree("photos/0", fewer)
    others = [
        train(settings(tmp_path / "one", shots=1)),
        train(settings(tmp_path / "half", archive=fewer)),
    ]
    mine = load_file(run / "model.safetensors")["head.linear.weight"]
    assert all(not torch.equal(mine, load_file(other / "model.safetensors")["head.linear.weight"]) for other in others)


def test_nothing_was_scored_is_said_by_all_that_would_show_scores(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train(settings(tmp_path / "again", resume=run, output=run, epochs=2))
    shown = capsys.readouterr().out
    assert "7 training images of 3 classes, 0 queries" in shown
    assert f"{ARCHIVE} without labels in the archive photos" in shown
    assert "no mAP: there are no queries (--queries N draws N of the labeled images)" in shown
    for command in ("eval", "advise", "report"):
        assert main([command, str(run)]) == 2
        assert capsys.readouterr().err == f"error: {run} cannot be scored: it was trained without queries\n"


def test_queries_that_are_asked_for_search_the_other_labeled_images(tmp_path: Path) -> None:
    folder = train(settings(tmp_path / "run", queries=2))
    split = split_of(folder)
    assert (len(split["query"]), len(split["train"])) == (2, 5)
    assert sorted(split["gallery"]) == sorted(split["train"])
    assert sorted(split["archive"]) == archive_names()
    assert set(metrics_of(folder)["lengths"]) == {"4", "12"}  # type: ignore[call-overload]
    assert main(["eval", str(folder)]) == 0


@pytest.mark.parametrize("given", ["zero, one,two", "names.txt"])
def test_names_and_an_archive_are_enough(work: Path, tmp_path: Path, given: str) -> None:
    (work / "names.txt").write_text("zero\none\ntwo\n")
    assert (
        main(
            ["train", "--archive", "photos", "--classes", given, "--lengths", "4,12", "--output", str(tmp_path / "run")]
        )
        == 0
    )
    split = split_of(tmp_path / "run")
    assert (split["train"], split["query"]) == ([], [])
    assert sorted(split["archive"]) == archive_names()
    hasher = Hasher.from_pretrained(tmp_path / "run")
    assert hasher.class_names == CLASSES
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    codes = hasher.encode(sorted(Path("photos").rglob("*.png")))
    assert len(np.unique(codes, axis=0)) > 1


def test_a_class_may_have_a_name_and_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = train(settings(tmp_path / "folders", classes="nine,two,one,zero"))
    assert Hasher.from_pretrained(folders).class_names == ("nine", "two", "one", "zero")
    lists = train(settings(tmp_path / "lists", data="lists"))
    assert Hasher.from_pretrained(lists).class_names == (*CLASSES, "three")
    assert capsys.readouterr().out.count("1 of 4 classes have fewer than 1 training images") == 2
    assert len(split_of(lists)["train"]) == sum(LABELED.values())


def test_one_labeled_image_trains(tmp_path: Path) -> None:
    shutil.copytree("labeled/one", tmp_path / "labeled" / "one")
    folder = train(settings(tmp_path / "run", data=str(tmp_path / "labeled"), classes="one,two,zero"))
    assert len(split_of(folder)["train"]) == 1
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "model.safetensors").values())


def test_a_random_start_cannot_normalize_a_single_image(tmp_path: Path) -> None:
    shutil.copytree("labeled/one", tmp_path / "labeled" / "one")
    given = {"data": str(tmp_path / "labeled"), "archive": None, "classes": "one,two", "head_init": "random"}
    with pytest.raises(NestKALAError, match="a single training image cannot be batch-normalized"):
        train(settings(tmp_path / "run", shots="all", queries=0, **given))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_equal_one_where_all_images_are_less_than_a_batch(tmp_path: Path) -> None:
    common = ["--data", "labeled", "--archive", "photos", "--precision", "fp64", "--threads", "1", "--epochs", "3"]
    for processes in (1, 2):
        output = ("--lengths", "4,12", "--lr", "0.01", "--output", str(tmp_path / f"{processes}"))
        with Launch(processes, TRAIN_PY, *common, *output, folder=tmp_path / f"log of {processes}") as launch:
            assert f"{processes} process(es) on cpu" in launch.done()
    one, two = (load_file(tmp_path / n / "checkpoint.safetensors") for n in "12")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-11, msg=name)


def test_an_interrupted_run_goes_on_with_its_archive(
    run: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    train_epoch = Trainer._train_epoch

    def stop_in_second_epoch(self: Trainer, bar: object) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        train_epoch(self, bar)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop_in_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(settings(folder))
    later = work / "photos" / "added later.png"
    shutil.copy(work / "photos" / "0" / "deep" / "0.png", later)
    try:
        assert main(["train", "--resume", str(folder)]) == 0
    finally:
        later.unlink()
    for name in ("checkpoint.safetensors", "model.safetensors"):
        whole, again = load_file(run / name), load_file(folder / name)
        assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert split_of(folder) == split_of(run)


def test_broken_images_of_the_archive_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("photos", tmp_path / "photos")
    for name in ("a.png", "1/b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"no image")
    (tmp_path / "photos" / "unread.png").symlink_to("0/deep/0.png")  # seen already
    runs = []
    for on_broken in ("error", "skip"):
        for cache in (0, 1):
            output = tmp_path / f"{on_broken} {cache}"
            runs.append(train(settings(output, archive=tmp_path / "photos", on_broken=on_broken, cache_gb=cache)))
            assert "skipped 2 unreadable images of the archive, the first is 'archive//" in capsys.readouterr().out
            assert sorted(metrics_of(runs[-1])["broken_images"]) == ["archive//1/b.jpg", "archive//a.png"]  # type: ignore[call-overload]
    states = [load_file(folder / "model.safetensors") for folder in runs]
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in state)


def test_an_archive_of_nothing_but_broken_images_is_an_error(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(
        NestKALAError, match=r"none of the 3 images of the archive can be read; the first is 'archive//"
    ):
        train(settings(tmp_path / "run", archive=tmp_path))


# Data sets with an archive


def named(archive: Path, data: str = "labeled") -> list[str]:
    dataset = with_archive(load_dataset(data, Path()), archive)
    assert not dataset.targets[dataset.parts["archive"]].any()
    return [dataset.names[index] for index in dataset.parts["archive"]]


def test_an_archive_is_a_folder_or_lists_or_a_text_file(work: Path, tmp_path: Path) -> None:
    assert sorted(named(Path("photos"))) == archive_names()
    assert len(named(Path("lists"))) == sum(LABELED.values())
    absolute = work / "photos" / "1" / "deep" / "1.png"
    shutil.copytree("photos/0/deep", tmp_path / "mine")
    (tmp_path / "list.txt").write_text(
        f"mine/0.png\n\nmine/2.png 0 1 0\n{absolute}\nmine/../mine/0.png\nmine/gone.png\n"
    )
    assert named(tmp_path / "list.txt") == [
        "archive//mine/0.png",
        "archive//mine/2.png",
        f"archive//{absolute}",
        "archive//mine/gone.png",
    ]


def test_every_image_is_read_from_its_own_file() -> None:
    dataset = with_archive(load_dataset("labeled", Path()), Path("photos"))
    for name, read in ((name, dataset.read(index)) for index, name in enumerate(dataset.names)):
        folder = "photos" if name.startswith("archive//") else "labeled"
        assert read == Path(folder, name.removeprefix("archive//")).read_bytes()


def test_labeled_images_are_left_out_of_the_archive(tmp_path: Path) -> None:
    shutil.copytree("labeled", tmp_path / "all" / "labeled")
    shutil.copytree("photos", tmp_path / "all" / "photos")
    (tmp_path / "all" / "link.png").symlink_to(next((tmp_path / "all" / "labeled" / "one").iterdir()))
    found = named(tmp_path / "all", str(tmp_path / "all" / "labeled"))
    assert sorted(found) == archive_names(tmp_path / "all")[-ARCHIVE:]
    assert all(name.startswith("archive//photos/") for name in found)
    with pytest.raises(NestKALAError, match="holds no images other than the labeled ones"):
        with_archive(load_dataset("labeled", Path()), Path("labeled"))


def test_images_that_are_taken_stay_labeled_or_archived() -> None:
    dataset = with_archive(load_dataset("labeled", Path()), Path("photos"))
    taken = dataset.take(np.array([20, 3, 8]))
    assert list(taken.names) == [dataset.names[index] for index in (20, 3, 8)]
    assert [taken.read(place) for place in range(3)] == [dataset.read(index) for index in (20, 3, 8)]
    assert sorted(taken.parts["archive"]) == [0, 2]


def test_a_split_with_an_archive_comes_back(tmp_path: Path) -> None:
    dataset = with_archive(load_dataset("labeled", Path()), Path("photos"))
    for queries in (None, 3):
        split = draw_split(dataset, shots="all", seed=0, queries=queries)
        save_split(tmp_path / "split.json", split, dataset)
        again = load_split(tmp_path / "split.json", dataset)
        for part in ("train", "query", "gallery", "archive"):
            assert getattr(again, part).tolist() == getattr(split, part).tolist()
        assert again.unlabeled.tolist() == split.unlabeled.tolist()
        assert sorted(split.unlabeled) == list(range(7, 37))


def test_an_empty_archive_in_a_split_is_refused(tmp_path: Path) -> None:
    dataset = with_archive(load_dataset("labeled", Path()), Path("photos"))
    save_split(tmp_path / "split.json", draw_split(dataset, shots="all", seed=0), dataset)
    (tmp_path / "split.json").write_text(json.dumps(split_of(tmp_path) | {"archive": []}))
    with pytest.raises(NestKALAError, match="has an empty archive part"):
        load_split(tmp_path / "split.json", dataset)


def test_a_split_without_an_archive_takes_that_of_the_data(tmp_path: Path) -> None:
    labeled = load_dataset("labeled", Path())
    split = draw_split(labeled, shots=1, seed=0, queries=2)
    assert split.unlabeled.tolist() == split.gallery.tolist()
    save_split(tmp_path / "split.json", split, labeled)
    assert "archive" not in json.loads((tmp_path / "split.json").read_text())
    again = load_split(tmp_path / "split.json", with_archive(labeled, Path("photos")))
    assert again.unlabeled.tolist() == list(range(7, 37))


def test_fewer_shots_than_asked_for_are_taken_beside_an_archive_alone() -> None:
    labeled = load_dataset("labeled", Path())
    both = with_archive(labeled, Path("photos"))
    split = draw_split(both, shots=2, seed=0)
    assert both.targets[split.train].sum(axis=0).tolist() == [1, 2, 2]  # one, two, zero
    with pytest.raises(NestKALAError, match="class 'one' has 1 images in the training pool, but shots is 2"):
        draw_split(labeled, shots=2, seed=0, queries=0)
    every = draw_split(labeled, shots="all", seed=0, queries=0)
    assert sorted(every.train) == sorted(every.gallery) == list(range(7))


def test_what_is_left_out_of_an_archive_is_told(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(work / "photos", tmp_path / "photos")
    for name in ("a.jxl", "0/b.dng"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    scandir = os.scandir

    def failing(folder: Path | int) -> object:
        if not isinstance(folder, int) and Path(folder) == tmp_path / "photos" / "1":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    found = with_archive(load_dataset("labeled", Path()), tmp_path / "photos")
    assert found.notes == (
        "warning: cannot list '1': Input/output error (archive)",
        "note: skipped 2 files in unsupported formats (1 JPEG XL, 1 raw) (archive)",
    )
    train(settings(tmp_path / "run", archive=tmp_path / "photos"))
    assert "\n".join(found.notes) in capsys.readouterr().out


# Mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"archive": "nowhere"}, "archive: no folder or file nowhere"),
        ({"archive": "empty"}, "the archive empty holds no images"),
        ({"archive": "empty.txt"}, "the archive empty.txt holds no images"),
        ({"archive": "wrong.txt"}, r"none of the 2 images listed in wrong.txt exists, starting with 'a/1.png'"),
        ({"data": "digits"}, "an archive needs labeled images in files"),
        ({"data": "own"}, "an archive needs labeled images in files"),
        ({"head_init": "random"}, "only a closed-form start learns from an archive"),
        ({"head": "flat"}, "only a closed-form start learns from an archive"),
        (
            {"shots": 1, "head_init": "labels", "data": "lists"},
            "needs a labeled image, but class number 3 has none",
        ),
        ({"data": "none"}, "data none needs classes, such as --archive photos --classes dog,cat,car"),
        ({"data": "none", "archive": None, "classes": "a,b"}, "data none needs an archive"),
        ({"data": "none", "classes": "a,b", "shots": 3}, "data none has no labeled images: leave out queries"),
        ({"data": "none", "classes": "a,b", "queries": 3}, "data none has no labeled images: leave out queries"),
        ({"data": "none", "classes": "a,b", "gallery": "labeled"}, "gallery labeled is empty at 0 shots"),
        ({"data": "none", "classes": "a, b,a"}, "classes 'a, b,a' names the class 'a' more than once"),
        ({"data": "none", "classes": " ,"}, "names no classes"),
        ({"data": "none", "classes": "gone.txt"}, "no 'gone.txt': expected one class name per line"),
        ({"data": "none", "classes": "alone"}, "needs at least two classes"),
        ({"classes": "zero,won,two"}, "unknown class folder in 'labeled' 'one'; did you mean 'won'"),
        ({"data": "lists", "classes": "zero,one,two"}, "lists names its classes in classnames.txt: leave classes out"),
        ({"queries": 8}, "queries is 8, but only 7 images have a label"),
        ({"queries": -1}, "queries should be greater than or equal to 0"),
        ({"shots": "some"}, "shots must be a whole number of 0 or more, or all, not 'some'"),
    ],
    ids=str,
)
def test_mistakes_are_told_in_a_line(work: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    (work / "empty").mkdir(exist_ok=True)
    (work / "own").mkdir(exist_ok=True)
    np.save(work / "own" / "features.npy", np.ones((4, 3), np.float32))
    np.save(work / "own" / "labels.npy", np.arange(4) % 2)
    (work / "empty.txt").write_text("\n")
    (work / "wrong.txt").write_text("a/1.png 0 1\nb/1.png\n")
    with pytest.raises(NestKALAError, match=message) as error:
        train(settings(tmp_path / "run", **changes))
    assert "\n" not in str(error.value)
