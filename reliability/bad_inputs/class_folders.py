"""Folders of class folders."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nestkala.settings.config import Config
from nestkala.training.run import train

from .case import Make, accepted, refused
from .good import Good, noise, quietly, write_images

_MARKUP = "<img src=x onerror=alert(1)>"
_SMALL = ("--epochs", "1", "--shots", "2", "--lengths", "4", "--batch-size", "2", "--cache-gb", "0", "--workers", "0")


def _folder(spoil: Callable[[Path], object], *flags: str) -> Make:
    """Two class folders that `spoil` changes."""

    def make(here: Path, _: Good) -> list[str | Path]:
        write_images(here / "data", each=4)
        spoil(here / "data")
        return ["train", "--data", here / "data", "--output", here / "out", *_SMALL, *flags]

    return make


def _given(name: str) -> Make:
    return lambda here, _: ["train", "--data", name, "--output", here / "out", *_SMALL]


def _without(name: str) -> Callable[[Path], None]:
    """Remove the images of one class, or the class."""

    def spoil(folder: Path) -> None:
        for path in (folder / "b").iterdir():
            path.unlink()
        if name == "class":
            (folder / "b").rmdir()

    return spoil


def _no_class(folder: Path) -> None:
    _without("class")(folder)
    (folder / "a").rename(folder / ".a")


def _all_broken(folder: Path) -> None:
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"no image")


def _one_image(folder: Path) -> None:
    _without("images")(folder)
    noise(0).save(folder / "b" / "0.png")


def _class(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "b").rename(folder / name)


def _loops(folder: Path) -> None:
    (folder / "a" / "up").symlink_to("..")
    (folder / "again").symlink_to(".")
    (folder / "endless").symlink_to("endless")
    os.mkfifo(folder / "a" / "pipe.png")


def _two_classes(here: Path, _: Good, __: str) -> bool:
    split = json.loads((here / "out" / "split.json").read_text())
    names = {f"{label}/{number}.png" for label in "ab" for number in range(4)}
    return {*split["query"], *split["gallery"]} == names


_FORMS = ("caf\u00e9", "cafe\u0301")
"""The same class name as written by two systems."""


def _two_forms(folder: Path) -> None:
    for name, part in zip(_FORMS, ("train", "test"), strict=True):
        (folder / part).mkdir()
        shutil.copytree(folder / "a", folder / part / "a")
        shutil.copytree(folder / "b", folder / part / name)
    shutil.rmtree(folder / "a")
    shutil.rmtree(folder / "b")


def _one_class_of_both(here: Path, _: Good, __: str) -> bool:
    return json.loads((here / "out" / "model.json").read_text())["class_names"] == ["a", _FORMS[0]]


def _reported(here: Path, _: Good) -> list[str | Path]:
    write_images(here / "data", ("a", _MARKUP), 6)
    few = {"shots": 2, "queries": 2, "lengths": (4,), "batch_size": 2, "epochs": 1, "workers": 0, "cache_gb": 0}
    run = here / "run"
    quietly(lambda: train(Config(data=str(here / "data"), output=run, anchors="orthonormal", **few)))
    return ["report", run, "--output", here / "out"]


def _no_such_tag(here: Path, _: Good, __: str) -> bool:
    page = (here / "out" / "index.html").read_text()
    return "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page


CASES = [
    refused("no such data set", _given("digit"), "did you mean 'digits'"),
    refused("no such folder", _given("nowhere/at/all"), "'nowhere/at/all'"),
    refused("a file for a folder", lambda here, good: _given(str(good.image))(here, good), "0.png"),
    refused("a folder without classes", _folder(_no_class), "data"),
    refused("a single class", _folder(_without("class")), "/a'"),
    refused("a class without images", _folder(_without("images")), "/b'"),
    refused("a class of a link to nothing", _folder(lambda f: (f / "a" / "x.png").symlink_to("y")), "x.png"),
    refused("a class that is no UTF-8", _folder(_class(os.fsdecode(b"\xff"))), "'\\udcff'"),
    refused("more shots than a class has images", _folder(lambda _: None, "--shots", "9"), "'a' has"),
    refused("more queries than images", _folder(lambda _: None, "--queries", "9"), "queries is 9"),
    refused("no image that can be read", _folder(_all_broken, "--on-broken", "skip"), "'a/0.png'"),
    refused("a class of one image", _folder(_one_image), "'b' has"),
    accepted("links back, links to themselves, and pipes", _folder(_loops), _two_classes),
    accepted("a class in two of Unicode's forms", _folder(_two_forms, "--anchors", "orthonormal"), _one_class_of_both),
    refused("a list beside class folders", _folder(lambda f: (f / "val.txt").write_text("a/1.png 1 0\n")), "val.txt"),
    accepted("a report on a class of markup", _reported, _no_such_tag, is_slow=True),
]
