"""Folders of class folders."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from nestkala.cli import main

from ..pictures import noise
from .case import accepted, refused
from .damage import Damage
from .good import SMALL, Good, Make, command, on_path, placed, quietly, write_images

_MARKUP = "<img src=x onerror=alert(1)>"


def _folder(damage: Damage, flags: str = "") -> Make:
    """Two class folders that `damage` changes."""

    def write(folder: Path) -> None:
        write_images(folder, each=4)
        damage(folder)

    return on_path("data", write, f"train --data PATH --output OUT {SMALL} {flags}")


def _given(name: str) -> Make:
    return command(f"train --data {name} --output OUT {SMALL}")


def _without(name: str) -> Callable[[Path], None]:
    """Remove the images of one class, or the class."""

    def damage(folder: Path) -> None:
        for path in (folder / "b").iterdir():
            path.unlink()
        if name == "class":
            (folder / "b").rmdir()

    return damage


def _no_class(folder: Path) -> None:
    _without("class")(folder)
    (folder / "a").rename(folder / ".a")


def _all_broken(folder: Path) -> None:
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"no image")


def _one_image(folder: Path) -> None:
    _without("images")(folder)
    noise(0).save(folder / "b" / "0.png")


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


def _reported(here: Path, good: Good) -> list[str | Path]:
    write_images(here / "data", ("a", _MARKUP), 6)
    train = f"train --data DATA --output RUN --queries 2 --anchors orthonormal {SMALL}"
    run = placed(train, here, good, DATA=here / "data", RUN=here / "run")
    quietly(lambda: main(list(map(str, run))))
    return ["report", here / "run", "--output", here / "out"]


def _no_such_tag(here: Path, _: Good, __: str) -> bool:
    page = (here / "out" / "index.html").read_text()
    return "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page


CASES = [
    refused("data: unknown dataset", _given("digit"), "did you mean 'digits'"),
    refused("data: missing folder", _given("nowhere/at/all"), "'nowhere/at/all'"),
    refused("data: file instead of folder", _given("IMAGE"), "0.png"),
    refused("class folders: no classes", _folder(_no_class), "data"),
    refused("class folders: single class", _folder(_without("class")), "/a'"),
    refused("class folders: empty class", _folder(_without("images")), "/b'"),
    refused("class folders: dangling link", _folder(lambda f: (f / "a" / "x.png").symlink_to("y")), "x.png"),
    refused(
        "class folders: class name not UTF-8",
        _folder(lambda f: (f / "b").rename(f / os.fsdecode(b"\xff"))),
        "'\\udcff'",
    ),
    refused("class folders: more shots than images per class", _folder(lambda _: None, "--shots 9"), "'a' has"),
    refused("class folders: more queries than images", _folder(lambda _: None, "--queries 9"), "queries is 9"),
    refused("class folders: no readable images", _folder(_all_broken, "--on-broken skip"), "'a/0.png'"),
    refused("class folders: class with one image", _folder(_one_image), "'b' has"),
    accepted("class folders: link loops and pipes", _folder(_loops), _two_classes),
    accepted(
        "class folders: class name in two Unicode forms",
        _folder(_two_forms, "--anchors orthonormal"),
        _one_class_of_both,
    ),
    refused(
        "class folders: image list alongside", _folder(lambda f: (f / "val.txt").write_text("a/1.png 1 0\n")), "val.txt"
    ),
    accepted("report: HTML in class name", _reported, _no_such_tag, is_slow=True),
]
