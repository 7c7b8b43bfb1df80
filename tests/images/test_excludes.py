"""Files that patterns leave out, against git itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from nestkala import Hasher
from nestkala.images.excludes import Excludes
from nestkala.images.listing import LeftOut, images_below
from nestkala.index import PrefixIndex
from nestkala.search.folder import update_from_folder
from nestkala.utils.errors import NestKALAError

FILES = (
    *("a.jpg", "b.png", "private/a.jpg", "private/deep/b.jpg", "2019/private/c.jpg", "2019/keep.png", "2019/x y.jpg"),
    *("2020/raw/a.jpg", "2020/raw/b.jpg", "2020/#odd.jpg", "2020/ä.jpg"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    "patterns",
    [
        ["*.png"],
        ["private/"],
        ["/private"],
        ["2019/private"],
        ["**/raw/*", "!b.jpg"],
        ["private/", "!private/a.jpg"],
        ["*", "!*/", "!keep.png"],
        ["# a comment", "", "\\#odd.jpg"],
        ["x y.jpg", "ä.jpg"],
        ["[ab].*"],
    ],
)
def test_what_is_left_out_is_what_git_ignores(folder: Path, patterns: list[str]) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git on this machine")
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text("\n".join(patterns), encoding="utf-8")
    listing = ["git", "-C", folder, "-c", "core.quotePath=false", "ls-files", "-co", "--exclude-standard", "-z"]
    kept = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split("\0")
    expected = sorted(name for name in kept if name and not name.startswith("."))
    assert sorted(name for name, _ in images_below(folder, LeftOut(), patterns)) == expected
    excludes = Excludes(patterns)
    assert sorted(name for name in FILES if not excludes.covers(name)) == expected
    (folder / ".nestkalaignore").write_text("\n".join(patterns), encoding="utf-8")
    assert sorted(name for name, _ in images_below(folder, LeftOut())) == expected


def test_what_patterns_exclude_is_counted(folder: Path) -> None:
    (folder / ".nestkalaignore").write_text("*.png\n")
    left_out = LeftOut()
    assert len(list(images_below(folder, left_out, ["private/", "/a.jpg"]))) == 5
    assert left_out.excluded == {"images": 3, "folders": 2}
    assert left_out.in_words() == ["note: skipped 3 images and 2 folders excluded by patterns"]


def test_a_pattern_that_git_would_not_take_is_named(folder: Path) -> None:
    with pytest.raises(NestKALAError, match=r"not a valid pattern in \.gitignore syntax: '!'"):
        list(images_below(folder, LeftOut(), ["*.png", "!"]))


def test_images_that_are_excluded_later_leave_the_index_without_an_alarm(noise_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(8):
        path = tmp_path / "photos" / ("private" if number < 6 else "open") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    hasher, index = Hasher.from_pretrained(noise_model, "cpu"), PrefixIndex.empty(20)
    update_from_folder(index, tmp_path / "photos", hasher)
    changes = update_from_folder(index, tmp_path / "photos", hasher, exclude=["private/"])
    assert (len(changes.removed), len(index)) == (6, 2)
    assert update_from_folder(index, tmp_path / "photos", hasher).added == [f"private/{n}.png" for n in range(6)]
